//! Messages to the client, in msgpack as openpi's client reads it.

use pi0_edge::bundle::{Manifest, PolicyKind};
use rmp::encode::{
    ValueWriteError, write_array_len, write_bin, write_bool, write_f64, write_map_len, write_nil, write_sint,
    write_str, write_uint,
};
use serde_json::{Map, Value, json};

use crate::inference::Answer;

/// A message, or what kept it from being written, which takes more than memory can hold.
pub(crate) type Packed = Result<Vec<u8>, ValueWriteError>;

fn pack(out: &mut Vec<u8>, value: &Value) -> Result<(), ValueWriteError> {
    match value {
        Value::Null => write_nil(out).map_err(ValueWriteError::InvalidMarkerWrite)?,
        Value::Bool(b) => write_bool(out, *b).map_err(ValueWriteError::InvalidMarkerWrite)?,
        Value::Number(n) => match (n.as_u64(), n.as_i64(), n.as_f64()) {
            (Some(n), ..) => _ = write_uint(out, n)?,
            (None, Some(n), _) => _ = write_sint(out, n)?,
            (None, None, x) => write_f64(out, x.unwrap_or(f64::NAN))?,
        },
        Value::String(text) => write_str(out, text)?,
        Value::Array(values) => {
            write_array_len(out, values.len() as u32)?;
            values.iter().try_for_each(|value| pack(out, value))?;
        }
        Value::Object(entries) => {
            write_map_len(out, entries.len() as u32)?;
            for (key, value) in entries {
                write_str(out, key)?;
                pack(out, value)?;
            }
        }
    }
    Ok(())
}

/// Returns the first message of a connection: what is served here, and `more`.
pub(crate) fn metadata(manifest: &Manifest, num_steps: usize, more: &Map<String, Value>) -> Packed {
    let cameras = |required: bool| -> Vec<&str> {
        manifest.cameras.iter().filter(|c| c.required || !required).map(|c| c.name.as_str()).collect()
    };
    let mut entries = json!({
        "server": concat!("pi0-edge ", env!("CARGO_PKG_VERSION")),
        "protocol": "openpi.websocket_policy",
        "policy": match manifest.policy { PolicyKind::Pi0 => "pi0", PolicyKind::Pi05 => "pi05" },
        "action_horizon": manifest.dimensions.action_horizon,
        "action_dim": manifest.action.dim,
        "state_dim": manifest.state.dim,
        "num_steps": num_steps,
        "cameras": cameras(false),
        "required_cameras": cameras(true),
    });
    if let Value::Object(entries) = &mut entries {
        entries.extend(more.clone());
    }
    let mut out = Vec::new();
    pack(&mut out, &entries)?;
    Ok(out)
}

/// Returns the answer to a request. `prev_total` is the time that the answer before it took, in ms, where there was one.
///
/// There is one array in it: openpi's ActionChunkBroker slices every array of a response by step.
pub(crate) fn response(answer: &Answer, prev_total: Option<f64>) -> Packed {
    let mut out = Vec::with_capacity(512 + answer.actions.len() * 4);
    let mut server = json!({ "infer_ms": answer.infer_ms, "queue_ms": answer.queue_ms });
    if let (Value::Object(server), Some(total)) = (&mut server, prev_total) {
        server.insert("prev_total_ms".into(), json!(total));
    }
    let rest = json!({
        "policy_timing": answer.policy_timing,
        "server_timing": server,
        "seed": answer.seed,
        "num_steps": answer.num_steps,
    });
    let Value::Object(rest) = rest else { return Ok(out) };
    write_map_len(&mut out, 1 + rest.len() as u32)?;
    write_str(&mut out, "actions")?;
    write_map_len(&mut out, 4)?;
    write_bin(&mut out, b"__ndarray__")?;
    write_bool(&mut out, true).map_err(ValueWriteError::InvalidMarkerWrite)?;
    write_bin(&mut out, b"data")?;
    let data: Vec<u8> = answer.actions.iter().flat_map(|x| x.to_le_bytes()).collect();
    write_bin(&mut out, &data)?;
    write_bin(&mut out, b"dtype")?;
    write_str(&mut out, "<f4")?;
    write_bin(&mut out, b"shape")?;
    write_array_len(&mut out, 2)?;
    write_uint(&mut out, (answer.actions.len() / answer.action_dim) as u64)?;
    write_uint(&mut out, answer.action_dim as u64)?;
    for (key, value) in &rest {
        write_str(&mut out, key)?;
        pack(&mut out, value)?;
    }
    Ok(out)
}
