//! Which models there are and where their files lie.
//!
//! Manifests of well-known models are part of the program, so it knows their names, licences and digests before any file
//! is there. A manifest `NAME.toml` beside a model file is read too; it may not take the name of a built-in one. The two
//! tiny models for drawn faces are part of the program, file and all.
//!
//! A model file is used only if its SHA-256 is that of the manifest: what the pipeline says about a face is what the named
//! model said.

use std::fs;
use std::path::{Path, PathBuf};

use crate::manifest::{FileDigest, Manifest, ManifestError, TaskKind};

/// Manifests that the program brings along, in the order in which they are preferred.
const BUILT_IN: [(&str, &str); 8] = [
    ("yunet", include_str!("../../../models/yunet.toml")),
    ("yunet-2023mar", include_str!("../../../models/yunet-2023mar.toml")),
    ("retail0095", include_str!("../../../models/retail0095.toml")),
    ("lightqnet", include_str!("../../../models/lightqnet.toml")),
    ("minifasnet_v2", include_str!("../../../models/minifasnet_v2.toml")),
    ("minifasnet_v1se", include_str!("../../../models/minifasnet_v1se.toml")),
    (TINY_DETECT, include_str!("../../../models/tiny-detect.toml")),
    (TINY_EMBED, include_str!("../../../models/tiny-embed.toml")),
];

/// The detector of drawn faces; it knows nothing of real ones.
pub const TINY_DETECT: &str = "tiny-detect";
/// The embedder of drawn faces.
pub const TINY_EMBED: &str = "tiny-embed";

/// Files of models that are part of the program.
const FILES: [(&str, &[u8]); 2] = [
    (TINY_DETECT, include_bytes!("../../../models/tiny-detect.onnx")),
    (TINY_EMBED, include_bytes!("../../../models/tiny-embed.onnx")),
];

/// Largest manifest and model file that are read, in bytes.
const MAX_MANIFEST: u64 = 64 << 10;
const MAX_MODEL: u64 = 2 << 30;

/// The folder of models that commands write to when none is named, below the user's data folder.
const USERS: &str = "veilmatch/models";

/// Folders with models, and what they hold.
#[derive(Clone, Debug)]
pub struct Library {
    places: Vec<PathBuf>,
    entries: Vec<Entry>,
    broken: Vec<ManifestError>,
}

/// One known model.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What it is.
    pub manifest: Manifest,
    /// Where its manifest comes from.
    pub origin: Origin,
    /// Where its file lies.
    pub file: ModelFile,
}

/// Where a manifest comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Part of the program.
    BuiltIn,
    /// A file.
    File(PathBuf),
}

/// Where a model's file lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelFile {
    /// Part of the program.
    BuiltIn,
    /// In this file, whose digest has not been looked at yet.
    Found(PathBuf),
    /// In none of the folders.
    Missing,
}

/// A model whose file is the one that its manifest names.
pub struct Model {
    /// What it is.
    pub manifest: Manifest,
    /// The file's bytes.
    pub bytes: Vec<u8>,
}

/// Why a model cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LibraryError {
    /// No manifest of that name.
    #[error("there is no model {name:?}; known are {known}")]
    Unknown {
        /// The name.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The model does something else.
    #[error("{name} is a model that does {found}, not {wanted}")]
    Task {
        /// The model.
        name: String,
        /// What it does.
        found: TaskKind,
        /// What was needed.
        wanted: TaskKind,
    },
    /// Its file is in none of the folders.
    #[error("the file {file} of model {name} is in none of {places}")]
    Missing {
        /// The model.
        name: String,
        /// The file's name.
        file: String,
        /// The folders.
        places: String,
    },
    /// No model for a task that is needed is installed.
    #[error("no model that does {task} is installed in any of {places}")]
    NoneInstalled {
        /// The task.
        task: TaskKind,
        /// The folders.
        places: String,
    },
    /// The file is another one than the manifest names.
    #[error("{}: SHA-256 is {found}, but the manifest of {name} says {expected}", file.display())]
    Digest {
        /// The model.
        name: String,
        /// The file.
        file: PathBuf,
        /// What it is.
        found: FileDigest,
        /// What it should be.
        expected: FileDigest,
    },
    /// A file cannot be read.
    #[error("{}: {message}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The system's words.
        message: String,
    },
}

impl Library {
    /// Looks through these folders, in this order: `folder` if one is named, `VEILMATCH_MODELS`, the user's own
    /// ([`Library::users_folder`]), and `models` in the folder of data sets, `VEILMATCH_DATA`.
    #[must_use]
    pub fn standard(folder: Option<&Path>) -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let places = [
            folder.map(Path::to_path_buf),
            variable("VEILMATCH_MODELS"),
            Self::users_folder(),
            variable("VEILMATCH_DATA").map(|data| data.join("models")),
        ];
        Self::of(places.into_iter().flatten().collect())
    }

    /// Looks through these folders. One that does not exist is empty.
    #[must_use]
    pub fn of(places: Vec<PathBuf>) -> Self {
        let (mut entries, mut broken) = (Vec::new(), Vec::new());
        for (name, text) in BUILT_IN {
            match Manifest::parse(text, name) {
                Ok(manifest) => {
                    let within = FILES.iter().any(|(known, _)| *known == name);
                    let file = if within { ModelFile::BuiltIn } else { found(&places, &manifest.file) };
                    entries.push(Entry { manifest, origin: Origin::BuiltIn, file });
                }
                Err(error) => broken.push(error),
            }
        }
        for place in &places {
            for path in manifests(place) {
                match read_manifest(&path) {
                    // The first of a name counts: a copy of a built-in manifest changes nothing.
                    Ok(manifest) if entries.iter().any(|entry: &Entry| entry.manifest.name == manifest.name) => {}
                    Ok(manifest) => {
                        let file = found(std::slice::from_ref(place), &manifest.file);
                        entries.push(Entry { manifest, origin: Origin::File(path), file });
                    }
                    Err(error) => broken.push(error),
                }
            }
        }
        Self { places, entries, broken }
    }

    /// Where a user's own models lie: `veilmatch/models` below `XDG_DATA_HOME`, or below `~/.local/share`.
    #[must_use]
    pub fn users_folder() -> Option<PathBuf> {
        let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        absolute("XDG_DATA_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
            .map(|it| it.join(USERS))
    }

    /// The folders, in the order in which they are searched.
    #[must_use]
    pub fn places(&self) -> &[PathBuf] {
        &self.places
    }

    /// All known models, preferred ones first.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Manifests in the folders that are not valid.
    #[must_use]
    pub fn broken(&self) -> &[ManifestError] {
        &self.broken
    }

    /// The model of that name.
    ///
    /// # Errors
    /// [`LibraryError::Unknown`].
    pub fn entry(&self, name: &str) -> Result<&Entry, LibraryError> {
        self.entries.iter().find(|entry| entry.manifest.name == name).ok_or_else(|| LibraryError::Unknown {
            name: name.to_owned(),
            known: self.entries.iter().map(|entry| entry.manifest.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }

    /// The first model for the task whose file is there; the tiny ones are for drawn faces and are never chosen.
    #[must_use]
    pub fn preferred(&self, task: TaskKind) -> Option<&Entry> {
        self.installed(task).next()
    }

    /// All models for the task whose files are there, without the tiny ones.
    pub fn installed(&self, task: TaskKind) -> impl Iterator<Item = &Entry> {
        self.entries
            .iter()
            .filter(move |entry| entry.manifest.task.kind() == task && matches!(entry.file, ModelFile::Found(_)))
    }

    /// The named model for a task, or without a name the preferred one, its file read and its digest checked.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub fn choose(&self, name: Option<&str>, task: TaskKind) -> Result<Model, LibraryError> {
        let entry = match name {
            Some(name) => self.entry(name)?,
            None => self.preferred(task).ok_or_else(|| LibraryError::NoneInstalled { task, places: self.listed() })?,
        };
        let found = entry.manifest.task.kind();
        if found != task {
            return Err(LibraryError::Task { name: entry.manifest.name.clone(), found, wanted: task });
        }
        self.open(entry)
    }

    /// Reads a model's file and checks its digest.
    ///
    /// # Errors
    /// [`LibraryError::Missing`], [`LibraryError::Read`], [`LibraryError::Digest`].
    pub fn open(&self, entry: &Entry) -> Result<Model, LibraryError> {
        let manifest = entry.manifest.clone();
        let (bytes, file) = match &entry.file {
            ModelFile::BuiltIn => {
                let within = FILES.iter().find(|(name, _)| *name == manifest.name);
                (within.map_or_else(Vec::new, |(_, bytes)| bytes.to_vec()), PathBuf::from(&manifest.file))
            }
            ModelFile::Found(path) => (read(path, MAX_MODEL)?, path.clone()),
            ModelFile::Missing => {
                return Err(LibraryError::Missing { name: manifest.name, file: manifest.file, places: self.listed() });
            }
        };
        let found = FileDigest::of(&bytes);
        if found != manifest.digest {
            return Err(LibraryError::Digest { name: manifest.name, file, found, expected: manifest.digest });
        }
        Ok(Model { manifest, bytes })
    }

    /// The folders, for people.
    fn listed(&self) -> String {
        if self.places.is_empty() {
            return "no folder (neither VEILMATCH_MODELS nor HOME is set)".to_owned();
        }
        self.places.iter().map(|place| place.display().to_string()).collect::<Vec<_>>().join(", ")
    }
}

/// Reads a manifest from a file.
///
/// # Errors
/// [`ManifestError`].
pub fn read_manifest(path: &Path) -> Result<Manifest, ManifestError> {
    let failed = |message: String| ManifestError::Read { file: path.to_path_buf(), message };
    let bytes = read(path, MAX_MANIFEST).map_err(|error| match error {
        LibraryError::Read { message, .. } => failed(message),
        other => failed(other.to_string()),
    })?;
    let text = String::from_utf8(bytes).map_err(|_| failed("it is not text in UTF-8".to_owned()))?;
    Manifest::parse(&text, &path.display().to_string())
}

fn read(file: &Path, most: u64) -> Result<Vec<u8>, LibraryError> {
    let failed = |message: String| LibraryError::Read { file: file.to_path_buf(), message };
    let length = fs::metadata(file).map_err(|error| failed(error.to_string()))?.len();
    if length > most {
        return Err(failed(format!("{length} bytes; at most {most} are read")));
    }
    fs::read(file).map_err(|error| failed(error.to_string()))
}

fn found(places: &[PathBuf], file: &str) -> ModelFile {
    places.iter().map(|place| place.join(file)).find(|path| path.is_file()).map_or(ModelFile::Missing, ModelFile::Found)
}

/// The manifests in a folder, by name.
fn manifests(place: &Path) -> Vec<PathBuf> {
    let Ok(listing) = fs::read_dir(place) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = listing
        .filter_map(|item| item.ok().map(|item| item.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_manifests_are_valid_and_named_as_listed() {
        let library = Library::of(Vec::new());
        assert!(library.broken().is_empty(), "{:?}", library.broken());
        let names: Vec<&str> = library.entries().iter().map(|entry| entry.manifest.name.as_str()).collect();
        assert_eq!(names, BUILT_IN.map(|(name, _)| name));
        for (name, _) in FILES {
            library.open(library.entry(name).unwrap()).unwrap_or_else(|error| panic!("{error}"));
        }
    }

    #[test]
    fn nothing_installed_is_said_with_the_folders() {
        let library = Library::of(vec![PathBuf::from("/nowhere/models")]);
        let refusal = library.choose(None, TaskKind::Embed).err().unwrap().to_string();
        assert_eq!(refusal, "no model that does embed is installed in any of /nowhere/models");
        let refusal = library.choose(Some("yunet"), TaskKind::Detect).err().unwrap().to_string();
        assert_eq!(refusal, "the file yunet.onnx of model yunet is in none of /nowhere/models");
        assert!(matches!(library.choose(Some("yunet"), TaskKind::Embed), Err(LibraryError::Task { .. })));
        assert!(matches!(library.choose(Some("resnet"), TaskKind::Embed), Err(LibraryError::Unknown { .. })));
    }

    #[test]
    fn a_file_with_another_digest_is_never_used() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("yunet.onnx"), b"not the detector").unwrap();
        let library = Library::of(vec![folder.path().to_path_buf()]);
        let refusal = library.choose(None, TaskKind::Detect).err().unwrap();
        assert!(matches!(refusal, LibraryError::Digest { .. }), "{refusal}");
    }

    #[test]
    fn a_manifest_beside_the_file_is_read_and_a_broken_one_reported() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = b"a model";
        let text = include_str!("../../../models/retail0095.toml")
            .replace("\"retail0095\"", "\"mine\"")
            .replace("retail0095.onnx", "mine.onnx")
            .replace(
                "99dc30192e01f3155a3e2a0e73c1847442de342716379dc718a8375c1624198e",
                &FileDigest::of(bytes).to_string(),
            );
        fs::write(folder.path().join("mine.toml"), &text).unwrap();
        fs::write(folder.path().join("mine.onnx"), bytes).unwrap();
        // The name of a built-in model stands for that model alone.
        fs::write(folder.path().join("yunet.toml"), text.replace("\"mine\"", "\"yunet\"")).unwrap();
        fs::write(folder.path().join("broken.toml"), "name = 3").unwrap();
        let library = Library::of(vec![folder.path().to_path_buf()]);
        assert_eq!(library.choose(None, TaskKind::Embed).unwrap().bytes, bytes);
        assert_eq!(library.entry("yunet").unwrap().origin, Origin::BuiltIn);
        assert_eq!(library.broken().len(), 1);
        assert!(library.broken()[0].to_string().contains("broken.toml"), "{:?}", library.broken());
    }
}
