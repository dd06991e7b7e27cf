//! Memory: how much, how fragmented, and what is swapped.

use serde::Serialize;

use crate::tree::Tree;

/// Memory in bytes.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Memory {
    /// All of it.
    pub total: Option<u64>,
    /// Memory that a new program could use without swapping.
    pub available: Option<u64>,
    /// The bound of the control group the doctor ran in, if there is one.
    pub group_limit: Option<u64>,
    /// The largest free block of contiguous pages the kernel has.
    pub largest_free_block: Option<u64>,
    /// Free blocks of that size.
    pub largest_free_blocks: u64,
    /// Swap devices in use.
    pub swap: Vec<Swap>,
}

/// A swap device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Swap {
    /// Its path.
    pub device: String,
    /// Compressed memory instead of a disk.
    pub zram: bool,
    /// Its size in bytes.
    pub size: u64,
    /// Bytes swapped out to it.
    pub used: u64,
}

const PAGE: u64 = 4096;

impl Memory {
    pub(crate) fn read(tree: &Tree) -> Memory {
        let info = tree.text("/proc/meminfo").unwrap_or_default();
        let kilobytes = |key: &str| {
            let value = info.lines().find_map(|l| l.strip_prefix(key))?.split_whitespace().next()?;
            value.parse::<u64>().ok().map(|k| k * 1024)
        };
        let buddies = tree.text("/proc/buddyinfo").unwrap_or_default();
        let largest = largest_block(&buddies, page_size(tree).unwrap_or(PAGE));
        Memory {
            total: kilobytes("MemTotal:"),
            available: kilobytes("MemAvailable:"),
            group_limit: group_limit(tree),
            largest_free_block: largest.map(|l| l.0),
            largest_free_blocks: largest.map_or(0, |l| l.1),
            swap: swaps(&tree.text("/proc/swaps").unwrap_or_default()),
        }
    }

    /// Returns the memory that a program started here may use at most.
    pub fn usable(&self) -> Option<u64> {
        match (self.total, self.group_limit) {
            (Some(total), Some(limit)) => Some(total.min(limit)),
            (total, limit) => total.or(limit),
        }
    }
}

/// The page size the kernel handed to the process, from its auxiliary vector.
fn page_size(tree: &Tree) -> Option<u64> {
    const AT_PAGESZ: u64 = 6;
    let words = tree.bytes("/proc/self/auxv")?;
    let word = |b: &[u8]| b.try_into().ok().map(u64::from_ne_bytes);
    words.chunks_exact(16).find(|pair| word(&pair[..8]) == Some(AT_PAGESZ)).and_then(|pair| word(&pair[8..]))
}

/// Size and number of the largest free blocks over all zones: a line has the number of free blocks of 1, 2, 4, …
/// pages.
fn largest_block(buddies: &str, page: u64) -> Option<(u64, u64)> {
    let mut sums: Vec<u64> = Vec::new();
    for line in buddies.lines() {
        let counts = line.split_whitespace().skip_while(|w| *w != "zone").skip(2);
        for (order, count) in counts.enumerate() {
            sums.resize(sums.len().max(order + 1), 0);
            sums[order] += count.parse::<u64>().ok()?;
        }
    }
    let order = sums.iter().rposition(|c| *c > 0)?;
    Some((page << order, sums[order]))
}

fn swaps(text: &str) -> Vec<Swap> {
    let row = |line: &str| {
        let mut fields = line.split_whitespace();
        let device = fields.next()?.to_owned();
        let mut kilobytes = fields.skip(1).map_while(|f| f.parse::<u64>().ok());
        Some(Swap {
            zram: device.contains("zram"),
            size: kilobytes.next()? * 1024,
            used: kilobytes.next()? * 1024,
            device,
        })
    };
    text.lines().skip(1).filter_map(row).collect()
}

fn group_limit(tree: &Tree) -> Option<u64> {
    let groups = tree.text("/proc/self/cgroup")?;
    let group = groups.lines().find_map(|l| l.strip_prefix("0::"))?;
    tree.number(&format!("/sys/fs/cgroup{group}/memory.max"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_block_is_over_all_zones() {
        let text = "Node 0, zone      DMA      0      1      0\nNode 0, zone   Normal   9048      2      0\n";
        assert_eq!(largest_block(text, 4096), Some((8192, 3)));
        assert_eq!(largest_block("", 4096), None);
        assert_eq!(largest_block("Node 0, zone DMA 0 0", 4096), None);
    }

    #[test]
    fn swap_devices_are_listed() {
        let text =
            "Filename Type Size Used Priority\n/dev/zram0 partition 1000 10 5\n/swapfile file 2000 0 -2\n";
        let swaps = swaps(text);
        assert_eq!(swaps.len(), 2);
        assert!(swaps[0].zram && !swaps[1].zram);
        assert_eq!((swaps[0].size, swaps[0].used), (1_024_000, 10_240));
    }
}
