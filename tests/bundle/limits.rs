//! The bounds in SECURITY.md are those of the code, and each has one place there.

use std::path::Path;

use crate::project::project;

/// The content of every source file below `directory`.
fn sources(directory: &Path, into: &mut Vec<String>) {
    for entry in directory.read_dir().unwrap() {
        match entry.unwrap().path() {
            path if path.is_dir() => sources(&path, into),
            path if path.extension().is_some_and(|e| e == "rs") => {
                into.push(std::fs::read_to_string(path).unwrap())
            }
            _ => {}
        }
    }
}

/// A number as people write it, or as the code does: `4 MiB`, `1 << 20`, `4_096`.
fn number(text: &str) -> u64 {
    let plain =
        |text: &str| text.trim().replace('_', "").parse::<u64>().unwrap_or_else(|_| panic!("{text:?}"));
    for (unit, shift) in [(" KiB", 10), (" MiB", 20), (" GiB", 30)] {
        if let Some(amount) = text.strip_suffix(unit) {
            return plain(amount) << shift;
        }
    }
    match text.split_once("<<") {
        Some((amount, shift)) => plain(amount) << plain(shift),
        None => plain(text),
    }
}

#[test]
fn what_is_said_of_bounds_is_so() {
    let mut code = Vec::new();
    ["src", "crates"].iter().for_each(|part| sources(&project().join(part), &mut code));
    let text = std::fs::read_to_string(project().join("SECURITY.md")).unwrap();
    let rows: Vec<_> = text.lines().filter(|line| line.starts_with("| `MAX_")).collect();
    assert!(rows.len() > 20);
    for row in rows {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let name = cells[1].trim_matches('`');
        let declared = format!("const {name}: ");
        let found: Vec<_> = code
            .iter()
            .flat_map(|file| file.match_indices(&declared).map(move |(at, _)| &file[at..]))
            .collect();
        assert_eq!(found.len(), 1, "{name} is declared {} times", found.len());
        let value = found[0].split_once(" = ").unwrap().1.split_once(';').unwrap().0;
        assert_eq!(number(value), number(cells[2]), "{name}");
    }
}
