//! Small shared libraries with everything in them that the doctor reads, and no code.

pub const X86_64: u16 = 62;
pub const AARCH64: u16 = 183;

/// A library to be written.
#[derive(Clone)]
pub struct Library {
    machine: u16,
    soname: Option<String>,
    needed: Vec<String>,
    runpath: Option<String>,
    rpath: Option<String>,
    defines: Vec<String>,
    requires: Vec<(String, String)>,
    exports: Vec<String>,
    fatbin: Option<Vec<u8>>,
    /// Text constants.
    rodata: Vec<u8>,
}

impl Library {
    pub fn new(machine: u16) -> Self {
        Library {
            machine,
            soname: None,
            needed: Vec::new(),
            runpath: None,
            rpath: None,
            defines: Vec::new(),
            requires: Vec::new(),
            exports: Vec::new(),
            fatbin: None,
            rodata: Vec::new(),
        }
    }

    pub fn soname(mut self, name: &str) -> Self {
        self.soname = Some(name.into());
        self
    }

    pub fn needs(mut self, names: &[&str]) -> Self {
        self.needed.extend(names.iter().map(|n| (*n).to_owned()));
        self
    }

    pub fn runpath(mut self, path: &str) -> Self {
        self.runpath = Some(path.into());
        self
    }

    pub fn rpath(mut self, path: &str) -> Self {
        self.rpath = Some(path.into());
        self
    }

    pub fn defines(mut self, versions: &[&str]) -> Self {
        self.defines.extend(versions.iter().map(|n| (*n).to_owned()));
        self
    }

    pub fn requires(mut self, library: &str, version: &str) -> Self {
        self.requires.push((library.into(), version.into()));
        self
    }

    pub fn exports(mut self, symbols: &[&str]) -> Self {
        self.exports.extend(symbols.iter().map(|n| (*n).to_owned()));
        self
    }

    /// GPU code: `(1, 90)` is PTX for 9.0, `(2, 87)` machine code for 8.7. Each in a container of its own.
    pub fn kernels(mut self, entries: &[(u16, u32)]) -> Self {
        let bytes = self.fatbin.get_or_insert_default();
        for (kind, architecture) in entries {
            let mut entry = [0; 64 + 8];
            entry[..2].copy_from_slice(&kind.to_le_bytes());
            entry[4] = 64;
            entry[8] = 8;
            entry[28..32].copy_from_slice(&architecture.to_le_bytes());
            bytes.extend(0xBA55_ED50_u32.to_le_bytes());
            bytes.extend([1, 0, 16, 0]);
            bytes.extend((entry.len() as u64).to_le_bytes());
            bytes.extend(entry);
            // Padding, as the linker puts between object files.
            bytes.extend([0; 24]);
        }
        self
    }

    pub fn text(mut self, constant: &str) -> Self {
        self.rodata.extend(constant.as_bytes());
        self.rodata.push(0);
        self
    }

    /// The bytes of the file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut strings = Strings::default();
        let dynsym = self.symbols(&mut strings);
        let verdef = self.definitions(&mut strings);
        let verneed = self.requirements(&mut strings);
        let dynamic = self.dynamic(&mut strings);
        let counts = [1, self.defines.len() as u32, self.requires.len() as u32];
        // `.dynstr` is section 1, which the others link to.
        let mut sections: Vec<Section> = vec![
            (".dynstr", 3, 0, 0, 0, strings.bytes),
            (".dynsym", 11, 1, counts[0], 24, dynsym),
            (".dynamic", 6, 1, 0, 16, dynamic),
            (".rodata", 1, 0, 0, 0, self.rodata.clone()),
        ];
        if counts[1] > 0 {
            sections.push((".gnu.version_d", 0x6fff_fffd, 1, counts[1], 0, verdef));
        }
        if counts[2] > 0 {
            sections.push((".gnu.version_r", 0x6fff_fffe, 1, counts[2], 0, verneed));
        }
        if let Some(fatbin) = &self.fatbin {
            sections.push((".nv_fatbin", 1, 0, 0, 0, fatbin.clone()));
        }
        let mut names = Strings::default();
        let mut headers = vec![0; 64];
        let mut file = vec![0; 64];
        let labels: Vec<u32> = sections.iter().map(|s| names.add(s.0)).collect();
        let own_label = names.add(".shstrtab");
        sections.push((".shstrtab", 3, 0, 0, 0, names.bytes));
        for (i, (_, kind, link, info, entry, contents)) in sections.iter().enumerate() {
            let label = labels.get(i).copied().unwrap_or(own_label);
            let at = file.len() as u64;
            for word in [label, *kind] {
                headers.extend(word.to_le_bytes());
            }
            for long in [2, at, at, contents.len() as u64] {
                headers.extend(u64::to_le_bytes(long));
            }
            for word in [*link, *info] {
                headers.extend(word.to_le_bytes());
            }
            for long in [8, *entry] {
                headers.extend(u64::to_le_bytes(long));
            }
            file.extend(contents);
            file.resize(file.len().next_multiple_of(8), 0);
        }
        let table = file.len() as u64;
        file.extend(&headers);
        file[..8].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0]);
        file[16..18].copy_from_slice(&3u16.to_le_bytes());
        file[18..20].copy_from_slice(&self.machine.to_le_bytes());
        file[20] = 1;
        file[40..48].copy_from_slice(&table.to_le_bytes());
        file[52] = 64;
        file[58] = 64;
        file[60..62].copy_from_slice(&(sections.len() as u16 + 1).to_le_bytes());
        file[62..64].copy_from_slice(&(sections.len() as u16).to_le_bytes());
        file
    }

    fn symbols(&self, strings: &mut Strings) -> Vec<u8> {
        let mut bytes = vec![0; 24];
        for name in &self.exports {
            bytes.extend(strings.add(name).to_le_bytes());
            // A global function in section 1 of no size.
            bytes.extend([0x12, 0, 1, 0]);
            bytes.extend([0; 16]);
        }
        bytes
    }

    fn definitions(&self, strings: &mut Strings) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (i, version) in self.defines.iter().enumerate() {
            let last = i + 1 == self.defines.len();
            for half in [1, 0, i as u16 + 1, 1] {
                bytes.extend(u16::to_le_bytes(half));
            }
            for word in [0, 20, if last { 0 } else { 28 }, strings.add(version), 0] {
                bytes.extend(u32::to_le_bytes(word));
            }
        }
        bytes
    }

    fn requirements(&self, strings: &mut Strings) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (i, (library, version)) in self.requires.iter().enumerate() {
            let last = i + 1 == self.requires.len();
            bytes.extend([1, 0, 1, 0]);
            for word in [strings.add(library), 16, if last { 0 } else { 32 }, 0, 2, strings.add(version), 0] {
                bytes.extend(u32::to_le_bytes(word));
            }
        }
        bytes
    }

    fn dynamic(&self, strings: &mut Strings) -> Vec<u8> {
        let needed = self.needed.iter().map(|n| (1, n));
        let others = [(14, &self.soname), (15, &self.rpath), (29, &self.runpath)];
        let others = others.into_iter().filter_map(|(tag, value)| Some((tag, value.as_ref()?)));
        let mut bytes = Vec::new();
        for (tag, value) in needed.chain(others) {
            bytes.extend(u64::to_le_bytes(tag));
            bytes.extend(u64::from(strings.add(value)).to_le_bytes());
        }
        bytes.extend([0; 16]);
        bytes
    }
}

/// Name, type, link, info, entry size, contents.
type Section = (&'static str, u32, u32, u32, u64, Vec<u8>);

struct Strings {
    bytes: Vec<u8>,
}

impl Default for Strings {
    fn default() -> Self {
        Strings { bytes: vec![0] }
    }
}

impl Strings {
    fn add(&mut self, text: &str) -> u32 {
        let at = self.bytes.len() as u32;
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
        at
    }
}
