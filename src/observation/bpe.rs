//! Byte-pair encoding as PaliGemma's tokenizer does it, in buffers that are made once.
//!
//! The `tokenizers` library gives the same ids, but allocates for every piece of text it looks at; PI0.5 has the state
//! in its prompt, so that every inference has a new one.

use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

/// Takes the place of a space before anything else.
pub(super) const SPACE: char = '\u{2581}';

/// A tokenizer: its tables, and room to work in.
#[derive(Debug)]
pub(super) struct Bpe {
    tables: Tables,
    room: Room,
}

/// The tables that a `tokenizer.json` comes down to.
#[derive(Debug)]
pub(super) struct Tables {
    /// Ids around every text.
    pub before: Vec<u32>,
    pub after: Vec<u32>,
    /// Ids of the characters that are tokens; others are spelt in bytes.
    pub characters: HashMap<char, u32, Mixed>,
    pub bytes: [u32; 256],
    /// From a pair of ids to its rank, lower first, and the id it becomes.
    pub merges: HashMap<(u32, u32), (u32, u32), Mixed>,
    /// Tokens found in the text as it is.
    pub raw: AddedTokens,
    /// Tokens found in what is left once its spaces are replaced.
    pub replaced: AddedTokens,
}

#[derive(Debug)]
struct Room {
    /// A piece of text with its spaces replaced.
    text: String,
    symbols: Vec<Symbol>,
    candidates: BinaryHeap<Candidate>,
}

/// A token in the making, linked to its neighbours.
#[derive(Debug, Clone, Copy)]
struct Symbol {
    id: u32,
    previous: u32,
    next: u32,
    /// Merged into the symbol before it.
    gone: bool,
}

/// No symbol.
const NONE: u32 = u32::MAX;

/// A pair that may be merged; the greatest is merged first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Candidate {
    rank: u32,
    /// The left one of the pair.
    place: u32,
    id: u32,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.rank, other.place, other.id).cmp(&(self.rank, self.place, self.id))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Bpe {
    /// An encoder for texts of up to `max_bytes` bytes; longer ones make it allocate.
    pub fn new(tables: Tables, max_bytes: usize) -> Self {
        // A replaced space takes three bytes, and a character that is no token a symbol for every byte.
        let symbols = max_bytes * SPACE.len_utf8();
        let room = Room {
            text: String::with_capacity(symbols),
            symbols: Vec::with_capacity(symbols),
            // Every symbol is a candidate at first, and every merge takes out one and puts in at most two.
            candidates: BinaryHeap::with_capacity(2 * symbols),
        };
        Bpe { tables, room }
    }

    /// Appends the ids of `text` to `ids`.
    pub fn encode(&mut self, text: &str, ids: &mut Vec<u32>) {
        let Bpe { tables, room } = self;
        ids.extend_from_slice(&tables.before);
        tables.raw.split(text, |part| match part {
            Part::Token(id) => ids.push(id),
            Part::Text(text) => {
                room.text.clear();
                room.text.extend(text.chars().map(|c| if c == ' ' { SPACE } else { c }));
                let Room { text, symbols, candidates } = &mut *room;
                tables.replaced.split(text, |part| match part {
                    Part::Token(id) => ids.push(id),
                    Part::Text(text) => {
                        tables.spell(text, symbols);
                        tables.merge(symbols, candidates);
                        ids.extend(symbols.iter().filter(|s| !s.gone).map(|s| s.id));
                    }
                });
            }
        });
        ids.extend_from_slice(&tables.after);
    }
}

impl Bpe {
    /// Cuts the ids of one text to `len`, those that stand behind every text among them.
    pub fn truncate(&self, ids: &mut Vec<u32>, len: usize) {
        let after = &self.tables.after;
        ids.truncate(len.saturating_sub(after.len()));
        ids.extend_from_slice(&after[..after.len().min(len)]);
    }
}

impl Tables {
    /// The smallest tokens of `text`, in a row.
    fn spell(&self, text: &str, symbols: &mut Vec<Symbol>) {
        symbols.clear();
        let mut add = |id| {
            let place = symbols.len() as u32;
            symbols.push(Symbol { id, previous: place.wrapping_sub(1), next: place + 1, gone: false });
        };
        for character in text.chars() {
            match self.characters.get(&character) {
                Some(&id) => add(id),
                None => {
                    let mut bytes = [0; 4];
                    for byte in character.encode_utf8(&mut bytes).bytes() {
                        add(self.bytes[usize::from(byte)]);
                    }
                }
            }
        }
        if let Some(last) = symbols.last_mut() {
            last.next = NONE;
        }
    }

    /// Merges pairs, the lowest rank first and of equal ones the leftmost, until none is left.
    fn merge(&self, symbols: &mut [Symbol], candidates: &mut BinaryHeap<Candidate>) {
        candidates.clear();
        for (place, pair) in symbols.windows(2).enumerate() {
            self.consider(place as u32, pair[0].id, pair[1].id, candidates);
        }
        while let Some(Candidate { place, id, .. }) = candidates.pop() {
            let left = symbols[place as usize];
            if left.gone || left.next == NONE {
                continue;
            }
            let right = symbols[left.next as usize];
            // The pair may have changed since it was a candidate. What counts is that it still becomes the same token.
            if self.merges.get(&(left.id, right.id)).is_none_or(|&(_, becomes)| becomes != id) {
                continue;
            }
            symbols[left.next as usize].gone = true;
            symbols[place as usize].id = id;
            symbols[place as usize].next = right.next;
            if right.next != NONE {
                symbols[right.next as usize].previous = place;
                self.consider(place, id, symbols[right.next as usize].id, candidates);
            }
            if left.previous != NONE {
                self.consider(left.previous, symbols[left.previous as usize].id, id, candidates);
            }
        }
    }

    fn consider(&self, place: u32, left: u32, right: u32, candidates: &mut BinaryHeap<Candidate>) {
        if let Some(&(rank, id)) = self.merges.get(&(left, right)) {
            candidates.push(Candidate { rank, place, id });
        }
    }
}

/// Tokens that are found in a text as a whole, before anything is merged.
#[derive(Debug)]
pub(super) struct AddedTokens {
    /// By their first byte, and of one first byte the longest first.
    tokens: Vec<(String, u32)>,
    /// The index at which the tokens of a first byte begin, and that at which those of the last one end.
    starts: [u32; 257],
}

enum Part<'a> {
    Token(u32),
    Text(&'a str),
}

impl AddedTokens {
    /// From content, never empty, and id.
    pub fn new(mut tokens: Vec<(String, u32)>) -> Self {
        let first = |content: &str| content.as_bytes()[0];
        tokens.sort_by(|(a, _), (b, _)| first(a).cmp(&first(b)).then(b.len().cmp(&a.len())));
        let mut starts = [0; 257];
        for byte in 0..=255u8 {
            let end = tokens.partition_point(|(content, _)| first(content) <= byte);
            starts[usize::from(byte) + 1] = end as u32;
        }
        AddedTokens { tokens, starts }
    }

    /// Hands the parts of `text` on in order. The leftmost token is taken, and of those that begin there the longest.
    fn split(&self, text: &str, mut part: impl FnMut(Part<'_>)) {
        let (mut start, mut at) = (0, 0);
        while at < text.len() && !self.tokens.is_empty() {
            match self.at(&text.as_bytes()[at..]) {
                Some((length, id)) => {
                    if start < at {
                        part(Part::Text(&text[start..at]));
                    }
                    part(Part::Token(id));
                    at += length;
                    start = at;
                }
                None => at += 1,
            }
        }
        if start < text.len() {
            part(Part::Text(&text[start..]));
        }
    }

    /// Length and id of the longest token that `text` begins with.
    fn at(&self, text: &[u8]) -> Option<(usize, u32)> {
        let byte = usize::from(text[0]);
        let candidates = &self.tokens[self.starts[byte] as usize..self.starts[byte + 1] as usize];
        let found = candidates.iter().find(|(content, _)| text.starts_with(content.as_bytes()));
        found.map(|(content, id)| (content.len(), *id))
    }
}

/// Hashes the small keys of the tables: a multiplication is enough for ids that come from a file of our own bundle.
pub(super) type Mixed = BuildHasherDefault<Mix>;

#[derive(Debug, Default)]
pub(super) struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u32(byte.into());
        }
    }

    fn write_u32(&mut self, value: u32) {
        let mixed = (self.0.rotate_left(32) ^ u64::from(value)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 29);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
