//! The parts of a shared library that the dynamic loader reads.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::ops::Range;
use std::path::Path;

use object::elf::{DT_NEEDED, DT_RPATH, DT_RUNPATH, EM_AARCH64, EM_X86_64, FileHeader64, SHT_DYNSYM};
use object::read::elf::{FileHeader, SectionHeader, SectionTable, Sym};
use object::{Endianness, ReadCache};

type Header = FileHeader64<Endianness>;
type Data<'a> = &'a ReadCache<File>;
type Parsed<T> = Result<T, Box<dyn Error>>;

/// Most names that are kept of a library: it is made of tables that can point at one name from everywhere.
const MAX_NAMES: usize = 1 << 14;
/// Most exported symbols that are looked at.
const MAX_SYMBOLS: usize = 1 << 18;
/// Most sections of GPU code. A library has one or two, and each is walked.
const MAX_FATBINS: usize = 16;

/// Exported names worth keeping: they tell which providers a library was built with.
const KEPT_EXPORTS: [&str; 2] = ["OrtSessionOptionsAppendExecutionProvider_", "GetProvider"];

/// The linking facts of one 64-bit shared library.
#[derive(Debug)]
pub(super) struct Elf {
    pub machine: u16,
    pub needed: Vec<String>,
    pub rpath: Vec<String>,
    pub runpath: Vec<String>,
    /// Symbol versions it defines, such as `VERS_1.31.1` or `GLIBC_2.35`.
    pub defines: Vec<String>,
    /// Symbol versions it asks of others: the library's name and the versions.
    pub requires: BTreeMap<String, Vec<String>>,
    pub exports: Vec<String>,
    /// The ranges of the file that hold GPU code.
    pub fatbin: Vec<Range<u64>>,
}

impl Elf {
    /// Reads headers and tables only, a few kilobytes even of a library of hundreds of megabytes.
    pub fn read(file: File) -> Result<Elf, String> {
        let data = ReadCache::new(file);
        parse(&data).map_err(|e| e.to_string())
    }
}

/// The architecture's name as the kernel and Rust spell it.
pub(super) fn architecture(machine: u16) -> String {
    match machine {
        EM_X86_64 => "x86_64".into(),
        EM_AARCH64 => "aarch64".into(),
        other => format!("ELF machine {other}"),
    }
}

fn parse(data: Data<'_>) -> Parsed<Elf> {
    let header = Header::parse(data)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, data)?;
    let tables = Tables { endian, sections, data, names: Cell::new(0) };
    let mut elf = Elf {
        machine: header.e_machine(endian),
        needed: Vec::new(),
        rpath: Vec::new(),
        runpath: Vec::new(),
        defines: tables.defined_versions()?,
        requires: tables.required_versions()?,
        exports: tables.exports()?,
        fatbin: Vec::new(),
    };
    let dynamic = tables.sections.dynamic_table(endian, data)?;
    for entry in dynamic.iter() {
        match entry.tag {
            DT_NEEDED => elf.needed.push(tables.text(dynamic.string(entry)?)?),
            DT_RPATH => tables.search_path(dynamic.string(entry)?, &mut elf.rpath)?,
            DT_RUNPATH => tables.search_path(dynamic.string(entry)?, &mut elf.runpath)?,
            _ => {}
        }
    }
    for section in tables.sections.iter() {
        if tables.sections.section_name(endian, section)? == b".nv_fatbin"
            && let Some((start, size)) = section.file_range(endian)
        {
            if elf.fatbin.len() == MAX_FATBINS {
                return Err(format!("it has more than {MAX_FATBINS} sections of GPU code").into());
            }
            elf.fatbin.push(start..start.saturating_add(size));
        }
    }
    Ok(elf)
}

/// The section table of a file.
struct Tables<'a> {
    endian: Endianness,
    sections: SectionTable<'a, Header, Data<'a>>,
    data: Data<'a>,
    /// Names that were kept.
    names: Cell<usize>,
}

impl Tables<'_> {
    fn text(&self, bytes: &[u8]) -> Parsed<String> {
        if self.names.replace(self.names.get() + 1) >= MAX_NAMES {
            return Err(format!(
                "it names more than {MAX_NAMES} libraries, directories, versions and symbols"
            )
            .into());
        }
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    fn search_path(&self, bytes: &[u8], path: &mut Vec<String>) -> Parsed<()> {
        for directory in bytes.split(|&byte| byte == b':').filter(|d| !d.is_empty()) {
            path.push(self.text(directory)?);
        }
        Ok(())
    }

    fn defined_versions(&self) -> Parsed<Vec<String>> {
        let mut names = Vec::new();
        if let Some((mut definitions, link)) = self.sections.gnu_verdef(self.endian, self.data)? {
            let strings = self.sections.strings(self.endian, self.data, link)?;
            while let Some((_, mut auxiliary)) = definitions.next()? {
                // The first one names the version, the others its predecessors.
                if let Some(first) = auxiliary.next()? {
                    names.push(self.text(first.name(self.endian, strings)?)?);
                }
            }
        }
        Ok(names)
    }

    fn required_versions(&self) -> Parsed<BTreeMap<String, Vec<String>>> {
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        if let Some((mut needs, link)) = self.sections.gnu_verneed(self.endian, self.data)? {
            let strings = self.sections.strings(self.endian, self.data, link)?;
            while let Some((need, mut auxiliary)) = needs.next()? {
                let names = all.entry(self.text(need.file(self.endian, strings)?)?).or_default();
                while let Some(version) = auxiliary.next()? {
                    names.push(self.text(version.name(self.endian, strings)?)?);
                }
            }
        }
        Ok(all)
    }

    fn exports(&self) -> Parsed<Vec<String>> {
        let symbols = self.sections.symbols(self.endian, self.data, SHT_DYNSYM)?;
        let mut names = Vec::new();
        if symbols.len() > MAX_SYMBOLS {
            return Err(format!("it has {} symbols, more than {MAX_SYMBOLS}", symbols.len()).into());
        }
        for symbol in symbols.iter().filter(|s| !s.is_undefined(self.endian)) {
            let name = symbol.name(self.endian, symbols.strings())?;
            if KEPT_EXPORTS.iter().any(|kept| name.starts_with(kept.as_bytes())) {
                names.push(self.text(name)?);
            }
        }
        Ok(names)
    }
}

/// Replaces the loader's `$ORIGIN` by the directory of the library it is written in.
pub(super) fn expand_origin(directory: &str, library: &Path) -> String {
    let origin = library.parent().unwrap_or(Path::new("/")).to_string_lossy();
    directory.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_that_multiply_are_refused() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/library");
        let read = |name: &str| Elf::read(File::open(seeds.join(name)).unwrap());
        let error = read("one-version-everywhere").unwrap_err();
        assert!(error.contains("names more than 16384"), "{error}");
        let elf = read("cuda.so").unwrap();
        assert_eq!((elf.machine, elf.fatbin.len()), (EM_X86_64, 1));
        assert_eq!(elf.needed, ["libc.so.6"]);
        assert_eq!(elf.runpath, ["$ORIGIN", "/usr/lib/x"]);
        assert_eq!(elf.exports.len(), 2);
    }
}
