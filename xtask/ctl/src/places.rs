// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Where module files are installed.

use std::fs;
use std::path::{Path, PathBuf};

use crate::kmod;
use crate::module_file::{ModuleFile, Refused};

/// Copies of files that were live when their package went, by kernel release.
pub const KEPT: &str = "/var/lib/atom/kept";

/// Folders with payloads, the preferred one first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Places {
    folders: Vec<PathBuf>,
}

impl Places {
    /// Where payloads for the kernel `release` are looked for: where an operator puts them, where packages do, and where
    /// copies are kept of those whose package went while they were live.
    pub fn standard(release: &str) -> Self {
        let mut folders = vec![PathBuf::from("/lib/atom")];
        folders.extend(Self::packaged(release).folders);
        folders.push(Path::new(KEPT).join(release));
        Self::of(folders)
    }

    /// Where packages put payloads for the kernel `release`.
    pub fn packaged(release: &str) -> Self {
        Self::of(vec![Path::new("/lib/modules").join(release).join("extra/atom")])
    }

    /// The given folders, or the standard ones when none is given.
    pub fn chosen(folders: Vec<PathBuf>, release: &str) -> Self {
        if folders.is_empty() {
            Self::standard(release)
        } else {
            Self::of(folders)
        }
    }

    /// These folders.
    pub fn of(folders: Vec<PathBuf>) -> Self {
        Self { folders }
    }

    /// The folders, in the order in which they are searched.
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// All module files, sorted by name within each folder. A folder that is missing has none.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for folder in &self.folders {
            let Ok(entries) = fs::read_dir(folder) else {
                continue;
            };
            let mut found: Vec<PathBuf> = entries
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| path.extension().is_some_and(|extension| extension == "ko"))
                .collect();
            found.sort();
            files.extend(found);
        }
        files
    }

    /// The file of a module, by the name that the module has in the kernel.
    pub fn find(&self, module: &str) -> Option<PathBuf> {
        let module = kmod::normalised(module);
        self.files().into_iter().find(|path| {
            path.file_stem().is_some_and(|stem| kmod::normalised(&stem.to_string_lossy()) == module)
        })
    }

    /// Reads the file of a module.
    pub fn read(&self, module: &str) -> Result<ModuleFile, Refused> {
        let path = self.find(module).ok_or_else(|| {
            let searched: Vec<String> =
                self.folders.iter().map(|folder| folder.display().to_string()).collect();
            Refused::situation(
                format!("no file of module {module} was found in {}", searched.join(" or ")),
                "install it there, or name it with --old FILE",
            )
        })?;
        ModuleFile::read(&path)
    }

    /// Finds the payload of a version and reads its file.
    pub fn read_version(&self, version: &str) -> Result<ModuleFile, Refused> {
        let usual = format!("payload_{}", version.replace('.', "_"));
        let (likely, others): (Vec<_>, Vec<_>) = self.files().into_iter().partition(|path| {
            path.file_stem().is_some_and(|stem| kmod::normalised(&stem.to_string_lossy()) == usual)
        });
        likely
            .iter()
            .chain(&others)
            .filter_map(|path| ModuleFile::read(path).ok())
            .find(|file| file.version() == version)
            .ok_or_else(|| {
                let searched: Vec<String> =
                    self.folders.iter().map(|folder| folder.display().to_string()).collect();
                Refused::situation(
                    format!("no file of payload {version} was found in {}", searched.join(" or ")),
                    "install it there, or name it with --file FILE",
                )
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module_file::test_file::TestFile;

    #[test]
    fn a_version_is_found_in_whatever_file_it_is() {
        let folder = std::env::temp_dir().join(format!("atomctl-version-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("odd.ko"), TestFile::payload("1.0.0").bytes()).unwrap();
        fs::write(folder.join("payload_1_0_0.ko"), b"no module").unwrap();
        fs::write(folder.join("payload_1_1_0.ko"), TestFile::payload("1.1.0").bytes()).unwrap();
        let places = Places::of(vec![folder.clone()]);
        assert_eq!(places.read_version("1.0.0").unwrap().path, folder.join("odd.ko"));
        assert_eq!(places.read_version("1.1.0").unwrap().version(), "1.1.0");
        assert!(places.read_version("1.2.0").unwrap_err().to_string().contains("1.2.0"));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_module_is_found_by_its_kernel_name_in_the_first_folder_that_has_it() {
        let root = std::env::temp_dir().join(format!("atomctl-places-{}", std::process::id()));
        let (first, second) = (root.join("first"), root.join("second"));
        fs::create_dir_all(&first).unwrap();
        fs::create_dir_all(&second).unwrap();
        for path in [
            first.join("payload-1.ko"),
            first.join("payload_1.txt"),
            second.join("payload_1.ko"),
            second.join("payload_2.ko"),
        ] {
            fs::write(path, b"").unwrap();
        }
        let places = Places::of(vec![root.join("missing"), first.clone(), second.clone()]);
        assert_eq!(places.find("payload_1"), Some(first.join("payload-1.ko")));
        assert_eq!(places.find("payload_2"), Some(second.join("payload_2.ko")));
        assert_eq!(places.find("payload_3"), None);
        assert_eq!(places.files().len(), 3);
        fs::remove_dir_all(&root).unwrap();
    }
}
