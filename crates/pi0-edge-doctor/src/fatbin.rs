//! The GPUs that a library has code for, from the headers of its fat binaries.
//!
//! `.nv_fatbin` holds containers one after another, padded in between. A container is a 16-byte header and then
//! entries, each a header and a payload:
//!
//! | container | | entry | |
//! |---|---|---|---|
//! | 0 | u32 magic `0xBA55ED50` | 0 | u16 kind: 1 PTX, 2 and 16 machine code |
//! | 4 | u16 version | 4 | u32 size of this header |
//! | 6 | u16 size of this header | 8 | u64 size of the payload with its padding |
//! | 8 | u64 size of all entries | 28 | u32 architecture, 87 for `sm_87` |
//!
//! NVIDIA does not document the format; this much is common knowledge and the same from CUDA 11 to 13. Payloads are
//! never looked at.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use serde::Serialize;

const MAGIC: u32 = 0xBA55_ED50;
const CONTAINER_HEADER: u64 = 16;
const ENTRY_HEADER: usize = 64;

/// Architectures a library holds GPU code for, as two or three digits: 87 for compute capability 8.7.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Kernels {
    /// Machine code, which runs on that architecture (on discrete GPUs also on later minor versions of it).
    pub sass: BTreeSet<u32>,
    /// Intermediate code, which the driver compiles for that architecture or any later one when it is first used.
    pub ptx: BTreeSet<u32>,
    /// True if every container could be read to its end.
    pub complete: bool,
}

/// Walks the containers in `sections` of `file`.
pub(super) fn scan(file: &File, sections: &[Range<u64>]) -> io::Result<Kernels> {
    let mut kernels = Kernels { complete: true, ..Kernels::default() };
    for section in sections {
        let mut at = section.start;
        while let Some(container) = next_container(file, at..section.end)? {
            let mut header = [0; CONTAINER_HEADER as usize];
            file.read_exact_at(&mut header, container)?;
            let entries = container + u64::from(u16_at(&header, 6));
            let end = entries.saturating_add(u64_at(&header, 8));
            if end > section.end || entries < container + CONTAINER_HEADER {
                kernels.complete = false;
                break;
            }
            kernels.complete &= scan_entries(file, entries..end, &mut kernels)?;
            at = end;
        }
    }
    Ok(kernels)
}

/// Returns whether the entries fill the container exactly.
fn scan_entries(file: &File, entries: Range<u64>, kernels: &mut Kernels) -> io::Result<bool> {
    let mut at = entries.start;
    while at + ENTRY_HEADER as u64 <= entries.end {
        let mut entry = [0; ENTRY_HEADER];
        file.read_exact_at(&mut entry, at)?;
        let header_size = u64::from(u32_at(&entry, 4));
        if header_size < ENTRY_HEADER as u64 {
            return Ok(false);
        }
        let architecture = u32_at(&entry, 28);
        match u16_at(&entry, 0) {
            1 => _ = kernels.ptx.insert(architecture),
            2 | 16 => _ = kernels.sass.insert(architecture),
            _ => {}
        }
        at = at.saturating_add(header_size).saturating_add(u64_at(&entry, 8));
    }
    Ok(at == entries.end)
}

/// Finds the next container behind padding, which can be up to a page long.
fn next_container(file: &File, mut range: Range<u64>) -> io::Result<Option<u64>> {
    let mut buffer = [0; 4096];
    while range.start.saturating_add(CONTAINER_HEADER) <= range.end {
        let piece = &mut buffer[..(range.end - range.start).min(4096) as usize];
        file.read_exact_at(piece, range.start)?;
        if let Some(i) = piece.windows(4).position(|w| u32_at(w, 0) == MAGIC) {
            return Ok(Some(range.start + i as u64));
        }
        // The last three bytes may begin a magic number that the next piece ends.
        range.start += piece.len() as u64 - 3;
    }
    Ok(None)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
