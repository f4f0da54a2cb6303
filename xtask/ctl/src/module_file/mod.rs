// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A module's file: read into memory as a whole, and believed nothing.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use atom_abi::stamp::{Stamp, SECTION};
use object::elf::{FileHeader64, ET_REL, SHT_NOBITS};
use object::read::elf::{FileHeader, SectionHeader};
use object::LittleEndian;

mod check;
pub mod note;
mod refused;
#[cfg(test)]
pub(crate) mod test_file;

pub use check::{atoms_offer, check, check_file};
pub use refused::Refused;

const MODINFO: &str = ".modinfo";
const ELF_MAGIC: &[u8] = b"\x7fELF";
/// More than any module has, so that a wrong path does not fill the memory.
const MAX_FILE_BYTES: u64 = 512 << 20;

/// A module's file in memory, with what it says about itself.
#[derive(Clone, Debug)]
pub struct ModuleFile {
    /// Where it was read from.
    pub path: PathBuf,
    /// All of it, ready for the kernel.
    pub bytes: Vec<u8>,
    /// The name that the module will have in the kernel.
    pub name: String,
    /// The kernel it was built for, with the options that matter.
    pub vermagic: String,
    /// The modules it needs.
    pub depends: Vec<String>,
    /// What it says as a payload; none when it is no payload.
    pub stamp: Option<Stamp>,
    /// Its build id, when the linker left one.
    pub build_id: Option<Vec<u8>>,
    /// The checksum that the build made of its sources, when it did.
    pub source_version: Option<String>,
}

impl ModuleFile {
    /// Reads and parses the file at `path`.
    pub fn read(path: &Path) -> Result<Self, Refused> {
        let bytes =
            read(path).map_err(|source| Refused::Unreadable { path: path.to_owned(), source })?;
        Self::parse(path, bytes)
    }

    /// Parses the content of a file that was read from `path`. The bytes are hostile.
    pub fn parse(path: &Path, bytes: Vec<u8>) -> Result<Self, Refused> {
        let found = sections(path, &bytes)?;
        let modinfo = found.modinfo.ok_or_else(|| Refused::NotAModule {
            path: path.to_owned(),
            why: format!("it has no section {MODINFO}"),
        })?;
        let value = |key| modinfo_value(modinfo, key);
        let missing = |key: &str| Refused::NotAModule {
            path: path.to_owned(),
            why: format!("its section {MODINFO} has no {key}"),
        };
        let name = value("name").ok_or_else(|| missing("name"))?;
        let vermagic = value("vermagic").ok_or_else(|| missing("vermagic"))?;
        let depends = value("depends")
            .unwrap_or_default()
            .split(',')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        let stamp = found
            .stamp
            .map(Stamp::parse)
            .transpose()
            .map_err(|error| Refused::BadStamp { path: path.to_owned(), why: error.to_string() })?;
        let build_id = found.build_id.and_then(note::build_id);
        let source_version = value("srcversion");
        Ok(Self {
            path: path.to_owned(),
            name,
            vermagic,
            depends,
            stamp,
            build_id,
            source_version,
            bytes,
        })
    }

    /// The kernel release that the module was built for.
    pub fn kernel(&self) -> &str {
        self.vermagic.split(' ').next().unwrap_or_default()
    }

    /// The payload's version; empty when the file is no payload.
    pub fn version(&self) -> &str {
        self.stamp.as_ref().map_or("", |stamp| stamp.version.as_str())
    }
}

#[derive(Default)]
struct Sections<'a> {
    modinfo: Option<&'a [u8]>,
    stamp: Option<&'a [u8]>,
    build_id: Option<&'a [u8]>,
}

/// Walks all sections, so that a file that was cut short anywhere is noticed.
fn sections<'a>(path: &Path, bytes: &'a [u8]) -> Result<Sections<'a>, Refused> {
    let endian = LittleEndian;
    if !bytes.starts_with(ELF_MAGIC) {
        return Err(Refused::NotElf { path: path.to_owned() });
    }
    let damaged = |why: String| Refused::Damaged { path: path.to_owned(), why };
    let cut_short = |why: String| Refused::CutShort { path: path.to_owned(), why };
    let header = FileHeader64::<LittleEndian>::parse(bytes).map_err(|error| {
        if bytes.len() < size_of::<FileHeader64<LittleEndian>>() {
            cut_short(format!("it ends within its header, after {} bytes", bytes.len()))
        } else {
            damaged(error.to_string())
        }
    })?;
    if header.e_type(endian) != ET_REL {
        return Err(Refused::NotAModule {
            path: path.to_owned(),
            why: "it is a program or a library, not a relocatable file".to_owned(),
        });
    }
    let length = bytes.len() as u64;
    let table_end = u64::from(header.e_shnum(endian))
        .saturating_mul(header.e_shentsize(endian).into())
        .saturating_add(header.e_shoff(endian));
    if table_end > length {
        return Err(cut_short(format!(
            "its section headers end at byte {table_end}, the file at byte {length}"
        )));
    }
    let table = header.sections(endian, bytes).map_err(|error| damaged(error.to_string()))?;
    let mut found = Sections::default();
    for section in table.iter() {
        let name =
            table.section_name(endian, section).map_err(|error| damaged(error.to_string()))?;
        let end = section.sh_offset(endian).saturating_add(section.sh_size(endian));
        if section.sh_type(endian) != SHT_NOBITS && end > length {
            return Err(cut_short(format!(
                "section {} ends at byte {end}, the file at byte {length}",
                String::from_utf8_lossy(name)
            )));
        }
        let place = match name {
            name if name == MODINFO.as_bytes() => &mut found.modinfo,
            name if name == SECTION.as_bytes() => &mut found.stamp,
            name if name == note::BUILD_ID_SECTION.as_bytes() => &mut found.build_id,
            _ => continue,
        };
        let content = section.data(endian, bytes).map_err(|error| damaged(error.to_string()))?;
        *place = Some(content);
    }
    Ok(found)
}

/// The value of `key` among `key=value` strings that each end with a zero byte.
fn modinfo_value(modinfo: &[u8], key: &str) -> Option<String> {
    modinfo
        .split(|byte| *byte == 0)
        .find_map(|entry| {
            entry.strip_prefix(key.as_bytes()).and_then(|rest| rest.strip_prefix(b"="))
        })
        .map(|value| String::from_utf8_lossy(value).into_owned())
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    // Asked for before the file is opened, because opening a pipe would wait for its writer.
    let facts = std::fs::metadata(path)?;
    if !facts.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    let mut bytes =
        Vec::with_capacity(usize::try_from(facts.len().min(MAX_FILE_BYTES)).unwrap_or(0));
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(std::io::Error::other("it is too large for a kernel module"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::test_file::{stamp, TestFile};
    use super::*;

    #[test]
    fn a_module_file_tells_its_name_kernel_dependencies_stamp_and_build_id() {
        let file = TestFile::payload("1.1.0").parse().unwrap();
        assert_eq!(file.name, "payload_1_1_0");
        assert_eq!(file.kernel(), "7.2.12");
        assert_eq!(file.depends, ["atom"]);
        assert_eq!(file.stamp, Some(stamp("1.1.0")));
        assert_eq!(file.build_id, Some(vec![0xab; 20]));
        assert_eq!(file.version(), "1.1.0");
    }

    #[test]
    fn a_file_cut_short_at_any_length_is_refused() {
        let whole = TestFile::payload("1.1.0").bytes();
        for length in 0..whole.len() {
            let cut = ModuleFile::parse(Path::new("cut.ko"), whole[..length].to_vec());
            assert!(cut.is_err(), "accepted after {length} bytes");
        }
        let middle = whole[..whole.len() / 2].to_vec();
        assert!(matches!(
            ModuleFile::parse(Path::new("cut.ko"), middle),
            Err(Refused::CutShort { .. })
        ));
    }

    #[test]
    fn a_file_with_any_byte_changed_never_panics() {
        let whole = TestFile::payload("1.1.0").bytes();
        for at in 0..whole.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut changed = whole.clone();
                changed[at] ^= flip;
                let _ = ModuleFile::parse(Path::new("odd.ko"), changed);
            }
        }
    }

    #[test]
    fn text_and_programs_are_no_modules() {
        assert!(matches!(
            ModuleFile::parse(Path::new("a.txt"), b"hello".to_vec()),
            Err(Refused::NotElf { .. })
        ));
        let program = std::env::current_exe().unwrap();
        assert!(matches!(ModuleFile::read(&program), Err(Refused::NotAModule { .. })));
    }

    #[test]
    fn a_missing_file_and_a_folder_are_unreadable() {
        for path in ["/nonexistent.ko", "/"] {
            assert!(matches!(ModuleFile::read(Path::new(path)), Err(Refused::Unreadable { .. })));
        }
    }

    #[test]
    fn a_key_is_not_found_at_the_end_of_another_key() {
        let modinfo = b"srcname=wrong\0name=right\0";
        assert_eq!(modinfo_value(modinfo, "name").unwrap(), "right");
        assert_eq!(modinfo_value(modinfo, "ame"), None);
    }
}
