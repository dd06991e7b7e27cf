//! Reads a `tokenizer.json` of PaliGemma's family: byte-pair encoding with bytes as the last resort, spaces written as
//! U+2581. Anything else is refused.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::{Value, json};

use super::bpe::{AddedTokens, SPACE, Tables};
use crate::limits::{MAX_ADDED_TOKENS, MAX_VOCABULARY};

#[derive(Deserialize)]
struct File {
    version: String,
    added_tokens: Vec<Added>,
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
    model: Model,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
}

#[derive(Deserialize)]
struct Model {
    r#type: String,
    dropout: Option<f32>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    byte_fallback: Option<bool>,
    ignore_merges: Option<bool>,
    vocab: HashMap<String, u32>,
    merges: Vec<Merge>,
}

/// Two tokens, written as a list of both or with a space between them.
struct Merge(String, String);

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pair;
        impl<'de> Visitor<'de> for Pair {
            type Value = Merge;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("two tokens")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Merge, E> {
                match text.split_once(' ') {
                    Some((left, right)) if !right.contains(' ') => Ok(Merge(left.into(), right.into())),
                    _ => Err(E::custom("a merge is not two tokens")),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Merge, A::Error> {
                match (seq.next_element()?, seq.next_element()?, seq.next_element::<String>()?) {
                    (Some(left), Some(right), None) => Ok(Merge(left, right)),
                    _ => Err(serde::de::Error::custom("a merge is not two tokens")),
                }
            }
        }
        deserializer.deserialize_any(Pair)
    }
}

/// The tables of a tokenizer of this family, or in what it is not one.
pub(super) fn read(json: &[u8]) -> Result<Tables, String> {
    let file: File = serde_json::from_slice(json).map_err(|e| e.to_string())?;
    let model = &file.model;
    for (what, found, most) in [
        ("tokens", model.vocab.len(), MAX_VOCABULARY),
        ("added tokens", file.added_tokens.len(), MAX_ADDED_TOKENS),
    ] {
        if found > most {
            return Err(format!("it has {found} {what}, at most {most} are allowed"));
        }
    }
    if file.version != "1.0" || model.r#type != "BPE" {
        return Err(format!("version {} and model {}, not 1.0 and BPE", file.version, model.r#type));
    }
    if file.normalizer != json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE.to_string()})
    {
        return Err("its normalizer does more or less than to replace spaces".into());
    }
    check_pre_tokenizer(&file.pre_tokenizer)?;
    let affix = |text: &Option<String>| text.as_ref().is_some_and(|t| !t.is_empty());
    if affix(&model.continuing_subword_prefix) || affix(&model.end_of_word_suffix) {
        return Err("it marks the insides or ends of words".into());
    }
    if model.dropout.is_some_and(|p| p != 0.0) || model.ignore_merges == Some(true) {
        return Err("it merges at random, or not at all".into());
    }
    if model.byte_fallback != Some(true) {
        return Err("it does not spell unknown characters in bytes".into());
    }
    let bytes = bytes(&model.vocab)?;
    let (before, after) = surroundings(&file.post_processor)?;
    let (raw, replaced) = added_tokens(&file.added_tokens, &model.vocab)?;
    Ok(Tables {
        before,
        after,
        characters: model.vocab.iter().filter_map(|(text, &id)| Some((single(text)?, id))).collect(),
        bytes,
        merges: merges(&model.merges, &model.vocab)?,
        raw,
        replaced,
    })
}

fn single(text: &str) -> Option<char> {
    let mut characters = text.chars();
    characters.next().filter(|_| characters.next().is_none())
}

/// Cutting at spaces does nothing, because none are left when it is its turn.
fn check_pre_tokenizer(rule: &Value) -> Result<(), String> {
    let cuts_at_spaces =
        rule["type"] == "Split" && rule["pattern"] == json!({"String": " "}) && rule["invert"] == false;
    if rule.is_null() || cuts_at_spaces {
        Ok(())
    } else {
        Err("it cuts texts into words of its own kind".into())
    }
}

fn bytes(vocab: &HashMap<String, u32>) -> Result<[u32; 256], String> {
    let mut ids = [0; 256];
    for (byte, id) in ids.iter_mut().enumerate() {
        let name = format!("<0x{byte:02X}>");
        *id = *vocab.get(&name).ok_or_else(|| format!("it has no token {name}"))?;
    }
    Ok(ids)
}

/// The ids before and after every text.
fn surroundings(rule: &Value) -> Result<(Vec<u32>, Vec<u32>), String> {
    let mut sides = [Vec::new(), Vec::new()];
    if rule.is_null() {
        return Ok(sides.into());
    }
    let refuse = || "it puts something other than fixed tokens around texts".to_owned();
    if rule["type"] != "TemplateProcessing" {
        return Err(refuse());
    }
    let mut side = 0;
    for item in rule["single"].as_array().ok_or_else(refuse)? {
        if item["Sequence"]["id"] == "A" && side == 0 {
            side = 1;
            continue;
        }
        let name = item["SpecialToken"]["id"].as_str().ok_or_else(refuse)?;
        for id in rule["special_tokens"][name]["ids"].as_array().ok_or_else(refuse)? {
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(refuse)?;
            sides[side].push(id);
        }
    }
    if side == 1 { Ok(sides.into()) } else { Err(refuse()) }
}

/// The added tokens: those found in a text as it is, and those found once its spaces are replaced.
fn added_tokens(
    tokens: &[Added],
    vocab: &HashMap<String, u32>,
) -> Result<(AddedTokens, AddedTokens), String> {
    let mut by_id = BTreeMap::new();
    // Ids are not taken from the list: a token that is in the vocabulary has its id from there, others follow in order.
    let mut next = vocab.len() as u32;
    for token in tokens.iter().filter(|t| !t.content.is_empty()) {
        if token.single_word || token.lstrip || token.rstrip {
            return Err(format!("its token {:?} depends on what is around it", token.content));
        }
        let id = vocab.get(&token.content).copied().unwrap_or_else(|| {
            next += 1;
            next - 1
        });
        if id != token.id || by_id.insert(id, token).is_some() {
            return Err(format!("its token {:?} has the id {}, expected {id}", token.content, token.id));
        }
    }
    let chosen = |normalized: bool| {
        let tokens = by_id.iter().filter(|(_, token)| token.normalized == normalized);
        AddedTokens::new(tokens.map(|(&id, token)| (written(&token.content, normalized), id)).collect())
    };
    Ok((chosen(false), chosen(true)))
}

fn written(content: &str, normalized: bool) -> String {
    if normalized { content.replace(' ', &SPACE.to_string()) } else { content.to_owned() }
}

type Merges<H> = HashMap<(u32, u32), (u32, u32), H>;

fn merges<H: std::hash::BuildHasher + Default>(
    pairs: &[Merge],
    vocab: &HashMap<String, u32>,
) -> Result<Merges<H>, String> {
    let mut merges = HashMap::with_capacity_and_hasher(pairs.len(), H::default());
    let mut joined = String::new();
    for (rank, Merge(left, right)) in pairs.iter().enumerate() {
        joined.clear();
        joined.push_str(left);
        joined.push_str(right);
        let id = |token: &str| {
            vocab.get(token).copied().ok_or_else(|| format!("it merges {token:?}, which is no token"))
        };
        merges.insert((id(left)?, id(right)?), (rank as u32, id(&joined)?));
    }
    Ok(merges)
}
