//! What the dynamic loader would read of a shared library.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use object::elf::{
    DT_NEEDED, DT_RPATH, DT_RUNPATH, DT_SONAME, EM_AARCH64, EM_X86_64, FileHeader64, SHT_DYNSYM,
};
use object::read::elf::{FileHeader, SectionHeader, SectionTable, Sym};
use object::{Endianness, ReadCache, StringTable};

type Header = FileHeader64<Endianness>;
type Data<'a> = &'a ReadCache<File>;

/// Exported names worth keeping: they tell which providers a library was built with.
const KEPT_EXPORTS: [&str; 2] = ["OrtSessionOptionsAppendExecutionProvider_", "GetProvider"];

/// The linking facts of one 64-bit shared library.
#[derive(Debug)]
pub(super) struct Elf {
    pub machine: u16,
    pub soname: Option<String>,
    pub needed: Vec<String>,
    pub rpath: Vec<String>,
    pub runpath: Vec<String>,
    /// Symbol versions it defines, such as `VERS_1.31.1` or `GLIBC_2.35`.
    pub defines: Vec<String>,
    /// Symbol versions it asks of others: the library's name and the versions.
    pub requires: Vec<(String, Vec<String>)>,
    pub exports: Vec<String>,
    /// Where GPU code lies in the file.
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

fn parse(data: Data<'_>) -> object::Result<Elf> {
    let header = Header::parse(data)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, data)?;
    let mut elf = Elf {
        machine: header.e_machine(endian),
        soname: None,
        needed: Vec::new(),
        rpath: Vec::new(),
        runpath: Vec::new(),
        defines: defined_versions(&sections, endian, data)?,
        requires: required_versions(&sections, endian, data)?,
        exports: exports(&sections, endian, data)?,
        fatbin: Vec::new(),
    };
    let dynamic = sections.dynamic_table(endian, data)?;
    for entry in dynamic.iter() {
        match entry.tag {
            DT_SONAME => elf.soname = Some(text(dynamic.string(entry)?)),
            DT_NEEDED => elf.needed.push(text(dynamic.string(entry)?)),
            DT_RPATH => elf.rpath.extend(search_path(dynamic.string(entry)?)),
            DT_RUNPATH => elf.runpath.extend(search_path(dynamic.string(entry)?)),
            _ => {}
        }
    }
    for section in sections.iter() {
        if sections.section_name(endian, section)? == b".nv_fatbin"
            && let Some((start, size)) = section.file_range(endian)
        {
            elf.fatbin.push(start..start.saturating_add(size));
        }
    }
    Ok(elf)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn search_path(bytes: &[u8]) -> Vec<String> {
    text(bytes).split(':').filter(|d| !d.is_empty()).map(str::to_owned).collect()
}

fn linked_strings<'a>(
    sections: &SectionTable<'a, Header, Data<'a>>,
    endian: Endianness,
    data: Data<'a>,
    link: object::SectionIndex,
) -> object::Result<StringTable<'a, Data<'a>>> {
    sections.strings(endian, data, link)
}

fn defined_versions<'a>(
    sections: &SectionTable<'a, Header, Data<'a>>,
    endian: Endianness,
    data: Data<'a>,
) -> object::Result<Vec<String>> {
    let mut names = Vec::new();
    if let Some((mut definitions, link)) = sections.gnu_verdef(endian, data)? {
        let strings = linked_strings(sections, endian, data, link)?;
        while let Some((_, mut auxiliary)) = definitions.next()? {
            // The first one names the version, the others its predecessors.
            if let Some(first) = auxiliary.next()? {
                names.push(text(first.name(endian, strings)?));
            }
        }
    }
    Ok(names)
}

fn required_versions<'a>(
    sections: &SectionTable<'a, Header, Data<'a>>,
    endian: Endianness,
    data: Data<'a>,
) -> object::Result<Vec<(String, Vec<String>)>> {
    let mut all: Vec<(String, Vec<String>)> = Vec::new();
    if let Some((mut needs, link)) = sections.gnu_verneed(endian, data)? {
        let strings = linked_strings(sections, endian, data, link)?;
        while let Some((need, mut auxiliary)) = needs.next()? {
            let mut names = Vec::new();
            while let Some(version) = auxiliary.next()? {
                names.push(text(version.name(endian, strings)?));
            }
            let library = text(need.file(endian, strings)?);
            match all.iter_mut().find(|(l, _)| *l == library) {
                Some((_, known)) => known.extend(names),
                None => all.push((library, names)),
            }
        }
    }
    Ok(all)
}

fn exports<'a>(
    sections: &SectionTable<'a, Header, Data<'a>>,
    endian: Endianness,
    data: Data<'a>,
) -> object::Result<Vec<String>> {
    let symbols = sections.symbols(endian, data, SHT_DYNSYM)?;
    let mut names = Vec::new();
    for symbol in symbols.iter().filter(|s| !s.is_undefined(endian)) {
        let name = text(symbol.name(endian, symbols.strings())?);
        if KEPT_EXPORTS.iter().any(|k| name.starts_with(k)) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Replaces the loader's `$ORIGIN` by the directory of the library it is written in.
pub(super) fn expand_origin(directory: &str, library: &Path) -> String {
    let origin = library.parent().unwrap_or(Path::new("/")).to_string_lossy();
    directory.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin)
}
