//! `veilmatch models`: which models there are, whether their files are the right ones, and how a file gets in.
//!
//! A file gets in by one door: its SHA-256 must be the one that a manifest names.

use std::fs;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;
use veilmatch_domain::{Explain, Status};
use veilmatch_extract::{
    Entry, ExtractError, FileDigest, Library, LibraryError, Manifest, ModelFile, Origin, Task, open_runtime,
    read_manifest,
};

use super::inspect::json;
use super::{PhotoOptions, RuntimeWord, bad};
use crate::exit::{CliError, Verdict, print};
use crate::report::table;

pub(crate) const LIST_EXAMPLES: &str = "\
Examples:
  veilmatch models list
  veilmatch models list --json | jq -r '.models[] | [.name, .digest] | @tsv'";

pub(crate) const VERIFY_EXAMPLES: &str = "\
Examples:
  veilmatch models verify
  veilmatch models verify retail0095 --runtime rust

Reads each file, compares its SHA-256 with the manifest's and loads it. Exit code 0 if all
is well, 1 if not.";

pub(crate) const ADD_EXAMPLES: &str = "\
Examples:
  veilmatch models add retail0095.onnx
  veilmatch models add arcface.onnx --manifest arcface.toml
  veilmatch models add retail0095.onnx --models /srv/veilmatch/models

The file's SHA-256 must be that of a known manifest, or of the one that is given; it is
copied under the name that the manifest says. By default to ~/.local/share/veilmatch/models.";

pub(crate) const PULL_EXAMPLES: &str = "\
Examples:
  veilmatch models pull yunet-2023mar
  veilmatch models pull yunet-2023mar --models /srv/veilmatch/models

Downloads by https from the address in the manifest, and keeps the file only if its SHA-256
is the manifest's. Most models have no such address: `veilmatch models list` says where
they come from, and `veilmatch models add FILE` installs them.";

/// Longest that a download may take.
const PATIENCE: Duration = Duration::from_secs(1800);
/// Largest file that is downloaded.
const MAX_DOWNLOAD: u64 = 2 << 30;

/// What to do with models.
#[derive(Clone, Debug, Subcommand)]
pub enum Models {
    /// List the models that are known: what they do, whether the file is there, licence and source
    #[command(after_help = LIST_EXAMPLES)]
    List {
        /// Where they lie.
        #[command(flatten)]
        place: Place,
    },
    /// Check that the files are the ones that the manifests name, and that they load: exit code 0 if so, 1 if not
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify {
        /// Which; by default all whose files are there
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// What runs the models: `onnxruntime`, `rust`, or `auto`
        #[arg(long, hide_possible_values = true, value_enum, default_value_t = RuntimeWord::Auto, value_name = "RUNTIME")]
        runtime: RuntimeWord,
        /// Where they lie.
        #[command(flatten)]
        place: Place,
    },
    /// Install a model file that you have
    #[command(after_help = ADD_EXAMPLES)]
    Add {
        /// The file
        #[arg(value_name = "FILE.onnx")]
        file: PathBuf,
        /// Its manifest, if it is none of the known models
        #[arg(long, value_name = "FILE.toml")]
        manifest: Option<PathBuf>,
        /// Where to.
        #[command(flatten)]
        place: Place,
    },
    /// Download a model from the address in its manifest
    #[command(after_help = PULL_EXAMPLES)]
    Pull {
        /// Which
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
        /// Where to.
        #[command(flatten)]
        place: Place,
    },
}

/// Where models lie, and how the answer is printed.
#[derive(Clone, Debug, Args)]
pub struct Place {
    /// A folder of models and manifests, searched before VEILMATCH_MODELS, ~/.local/share/veilmatch/models and
    /// VEILMATCH_DATA/models
    #[arg(long, value_name = "FOLDER")]
    pub models: Option<PathBuf>,
    /// Write one JSON object to standard output and nothing else
    #[arg(long)]
    pub json: bool,
}

impl Place {
    /// The folder that is written to: the one named, the variable's, or the user's own.
    fn folder(&self) -> Result<PathBuf, CliError> {
        let variable = std::env::var_os("VEILMATCH_MODELS").filter(|value| !value.is_empty()).map(PathBuf::from);
        self.models
            .clone()
            .or(variable)
            .or_else(Library::users_folder)
            .ok_or_else(|| CliError::Arguments(Box::new(ModelError::NoFolder)))
    }
}

/// A file that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {kind}", path.display())]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// What the system says.
    pub kind: io::ErrorKind,
}

impl Explain for FileError {
    fn code(&self) -> &'static str {
        "cannot-write-file"
    }
    fn status(&self) -> Status {
        Status::FailedPrecondition
    }
    fn advice(&self) -> &'static str {
        "check the folder and its permissions"
    }
}

/// Why a model does not get in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// No folder to write to.
    #[error("there is no folder for models: neither --models nor VEILMATCH_MODELS nor HOME says one")]
    NoFolder,
    /// No manifest names this file.
    #[error("{}: no known model has the SHA-256 {digest}", path.display())]
    Stranger {
        /// The file.
        path: PathBuf,
        /// Its digest.
        digest: FileDigest,
    },
    /// The file is not the one that its manifest names.
    #[error("{what}: SHA-256 is {found}, but the manifest of {name} says {expected}")]
    Digest {
        /// File or address.
        what: String,
        /// The model.
        name: String,
        /// What it is.
        found: FileDigest,
        /// What it should be.
        expected: FileDigest,
    },
    /// The name, or the file's name, stands for another model already.
    #[error("there is a model {name} with the file {file} already, and it is another one")]
    Taken {
        /// The name.
        name: String,
        /// Its file's name.
        file: String,
    },
    /// The manifest has no address.
    #[error("{name} cannot be downloaded as one file; it comes from {page}")]
    NoAddress {
        /// The model.
        name: String,
        /// Where it comes from.
        page: String,
    },
    /// The download failed.
    #[error("cannot download {address}: {message}")]
    Unreachable {
        /// From where.
        address: String,
        /// What happened.
        message: String,
    },
}

impl Explain for ModelError {
    fn code(&self) -> &'static str {
        match self {
            Self::NoFolder => "no-model-folder",
            Self::Stranger { .. } => "unknown-model-file",
            Self::Digest { .. } => "wrong-model-file",
            Self::Taken { .. } => "model-name-taken",
            Self::NoAddress { .. } => "no-download",
            Self::Unreachable { .. } => "cannot-download",
        }
    }
    fn status(&self) -> Status {
        match self {
            Self::Unreachable { .. } => Status::Unavailable,
            Self::Digest { .. } => Status::DataLoss,
            _ => Status::FailedPrecondition,
        }
    }
    fn advice(&self) -> &'static str {
        match self {
            Self::NoFolder => "name one with --models",
            Self::Stranger { .. } => {
                "give its manifest with --manifest, or get the file that `veilmatch models list` names"
            }
            Self::Digest { .. } => "the file is damaged or another version: get it again",
            Self::Taken { .. } => "give the manifest another name and another file name",
            Self::NoAddress { .. } => "get the file there and install it with `veilmatch models add FILE`",
            Self::Unreachable { .. } => {
                "without a network, get the file on another machine and install it with `veilmatch models add FILE`"
            }
        }
    }
}

fn refused(error: ModelError) -> CliError {
    match error {
        ModelError::Unreachable { .. } => CliError::protocol(error),
        error => CliError::Arguments(Box::new(error)),
    }
}

/// Runs one of the commands.
///
/// # Errors
/// [`CliError`].
pub fn run(command: &Models) -> Result<Verdict, CliError> {
    match command {
        Models::List { place } => list(place),
        Models::Verify { names, runtime, place } => verify(names, *runtime, place),
        Models::Add { file, manifest, place } => {
            let library = Library::standard(place.models.as_deref());
            done(&add(file, manifest.as_deref(), &library, &place.folder()?)?, place.json)
        }
        Models::Pull { names, place } => {
            let (library, folder) = (Library::standard(place.models.as_deref()), place.folder()?);
            let pulled = names
                .iter()
                .map(|name| pull(name, &library, &folder, &download))
                .collect::<Result<Vec<_>, _>>()?
                .concat();
            done(&pulled, place.json)
        }
    }
}

#[derive(Serialize)]
struct Listed<'a> {
    folders: Vec<String>,
    models: Vec<Line<'a>>,
    /// Manifests that cannot be used, and why.
    broken: Vec<String>,
}

#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    task: String,
    /// Whether a face can be taken through it now.
    installed: bool,
    /// Where the file lies; none if it is missing or part of the program.
    path: Option<String>,
    built_in: bool,
    digest: String,
    licence: &'a str,
    source: &'a str,
    download: Option<&'a str>,
    /// The manifest's file; none if it is part of the program.
    manifest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimension: Option<usize>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    thresholds: Vec<Threshold>,
}

#[derive(Serialize)]
struct Threshold {
    fmr: f64,
    cosine: f64,
}

impl<'a> From<&'a Entry> for Line<'a> {
    fn from(entry: &'a Entry) -> Self {
        let manifest = &entry.manifest;
        let (dimension, thresholds) = match &manifest.task {
            Task::Embed(embed) => {
                let measured = embed.thresholds.iter().map(|one| Threshold { fmr: one.fmr, cosine: one.cosine });
                (Some(embed.dimension.get()), measured.collect())
            }
            _ => (None, Vec::new()),
        };
        Self {
            name: &manifest.name,
            task: manifest.task.kind().to_string(),
            installed: entry.file != ModelFile::Missing,
            path: match &entry.file {
                ModelFile::Found(path) => Some(path.display().to_string()),
                _ => None,
            },
            built_in: entry.file == ModelFile::BuiltIn,
            digest: manifest.digest.to_string(),
            licence: &manifest.licence,
            source: &manifest.source,
            download: manifest.download.as_deref(),
            manifest: match &entry.origin {
                Origin::File(path) => Some(path.display().to_string()),
                Origin::BuiltIn => None,
            },
            dimension,
            thresholds,
        }
    }
}

fn list(place: &Place) -> Result<Verdict, CliError> {
    let library = Library::standard(place.models.as_deref());
    let listed = Listed {
        folders: library.places().iter().map(|folder| folder.display().to_string()).collect(),
        models: library.entries().iter().map(Line::from).collect(),
        broken: library.broken().iter().map(ToString::to_string).collect(),
    };
    print(&if place.json { json(&listed)? } else { listed.text() })?;
    Ok(Verdict::Agrees)
}

impl Listed<'_> {
    fn text(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .models
            .iter()
            .map(|line| {
                let state = match (&line.path, line.built_in) {
                    (Some(path), _) => path.clone(),
                    (None, true) => "part of the program, for drawn faces".into(),
                    (None, false) if line.download.is_some() => "missing; can be pulled".into(),
                    (None, false) => "missing".into(),
                };
                vec![line.name.into(), line.task.clone(), state, line.licence.into()]
            })
            .collect();
        let mut text = table(&["model", "does", "file", "licence"], &[], &rows);
        text.push('\n');
        // Addresses in one piece, to be copied.
        for line in self.models.iter().filter(|line| !line.built_in) {
            text += &format!("{} comes from {}\n", line.name, line.source);
        }
        text += "Folders: ";
        text += &if self.folders.is_empty() { "none".into() } else { self.folders.join(", ") };
        text.push('\n');
        for broken in &self.broken {
            text += &format!("not used: {broken}\n");
        }
        text
    }
}

#[derive(Serialize)]
struct Checked {
    runtime: String,
    models: Vec<Check>,
}

#[derive(Serialize)]
struct Check {
    name: String,
    good: bool,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

fn verify(names: &[String], runtime: RuntimeWord, place: &Place) -> Result<Verdict, CliError> {
    let library = Library::standard(place.models.as_deref());
    let choice = PhotoOptions { runtime, ..PhotoOptions::default() }.settings(0).runtime;
    let runtime = open_runtime(choice, 0).map_err(|error| bad(error.into()))?;
    let chosen: Vec<&Entry> = if names.is_empty() {
        library.entries().iter().filter(|entry| entry.file != ModelFile::Missing).collect()
    } else {
        names.iter().map(|name| library.entry(name)).collect::<Result<_, _>>().map_err(|error| bad(error.into()))?
    };
    let check = |entry: &&Entry| {
        let loaded = library
            .open(entry)
            .map_err(ExtractError::from)
            .and_then(|model| runtime.load(&model.bytes).map_err(ExtractError::from));
        let problem = loaded.err().map(|error| error.to_string());
        Check { name: entry.manifest.name.clone(), good: problem.is_none(), problem }
    };
    let checked = Checked { runtime: runtime.describe(), models: chosen.iter().map(check).collect() };
    print(&if place.json { json(&checked)? } else { checked.text() })?;
    Ok(if checked.models.iter().all(|check| check.good) { Verdict::Agrees } else { Verdict::No })
}

impl Checked {
    fn text(&self) -> String {
        let mut text = format!("on {}\n", self.runtime);
        for check in &self.models {
            text += &match &check.problem {
                None => format!("good  {}\n", check.name),
                Some(problem) => format!("BAD   {}: {problem}\n", check.name),
            };
        }
        text
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Installed {
    name: String,
    task: String,
    file: String,
}

fn done(installed: &[Installed], as_json: bool) -> Result<Verdict, CliError> {
    let text: String = installed.iter().map(|one| format!("{} ({}): {}\n", one.name, one.task, one.file)).collect();
    print(&if as_json { json(&installed)? } else { text })?;
    Ok(Verdict::Agrees)
}

/// Copies a file under the name of the manifest that its digest belongs to.
fn add(file: &Path, manifest: Option<&Path>, library: &Library, folder: &Path) -> Result<Vec<Installed>, CliError> {
    let unreadable = |error: io::Error| {
        let (file, message) = (file.to_path_buf(), error.to_string());
        bad(LibraryError::Read { file, message }.into())
    };
    let bytes = fs::read(file).map_err(unreadable)?;
    let digest = FileDigest::of(&bytes);
    let Some(path) = manifest else {
        let known = library.entries().iter().find(|entry| entry.manifest.digest == digest);
        let known = known.ok_or_else(|| refused(ModelError::Stranger { path: file.into(), digest }))?;
        return Ok(vec![install(&bytes, &known.manifest, None, folder)?]);
    };
    let manifest = read_manifest(path).map_err(|error| bad(error.into()))?;
    if manifest.digest != digest {
        let (what, name, expected) = (file.display().to_string(), manifest.name, manifest.digest);
        return Err(refused(ModelError::Digest { what, name, found: digest, expected }));
    }
    // A file of one name is one model's: it would be taken for the other's, and be the wrong one.
    let taken = |other: &Manifest| (other.name == manifest.name || other.file == manifest.file) && *other != manifest;
    if let Some(entry) = library.entries().iter().find(|entry| taken(&entry.manifest)) {
        let (name, file) = (entry.manifest.name.clone(), entry.manifest.file.clone());
        return Err(refused(ModelError::Taken { name, file }));
    }
    let text = fs::read(path).map_err(unreadable)?;
    Ok(vec![install(&bytes, &manifest, Some(&text), folder)?])
}

/// Writes a file, and its manifest if it is the user's own; each is there whole or not at all.
fn install(bytes: &[u8], manifest: &Manifest, own: Option<&[u8]>, folder: &Path) -> Result<Installed, CliError> {
    let failed = |path: &Path, error: &io::Error| {
        CliError::Arguments(Box::new(FileError { path: path.to_path_buf(), kind: error.kind() }))
    };
    fs::create_dir_all(folder).map_err(|error| failed(folder, &error))?;
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(|error| failed(&path, &error))?;
        file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(|error| failed(&path, &error))?;
        readable(file.path()).map_err(|error| failed(&path, &error))?;
        file.persist(&path).map_err(|error| failed(&path, &error.error))?;
        Ok::<_, CliError>(path)
    };
    let path = write(&manifest.file, bytes)?;
    if let Some(text) = own {
        write(&format!("{}.toml", manifest.name), text)?;
    }
    let task = manifest.task.kind().to_string();
    Ok(Installed { name: manifest.name.clone(), task, file: path.display().to_string() })
}

/// A temporary file is its owner's alone; a model is no secret, and a shared folder is read by others.
#[cfg(unix)]
fn readable(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn readable(_path: &Path) -> io::Result<()> {
    Ok(())
}

/// Gets what lies at an address.
type Get<'a> = dyn Fn(&str) -> Result<Vec<u8>, ModelError> + 'a;

/// Downloads a model, checks it and installs it; one that is there and good stays.
fn pull(name: &str, library: &Library, folder: &Path, get: &Get<'_>) -> Result<Vec<Installed>, CliError> {
    let entry = library.entry(name).map_err(|error| bad(error.into()))?;
    let manifest = &entry.manifest;
    let installed = |file: String| Installed { name: name.into(), task: manifest.task.kind().to_string(), file };
    match &entry.file {
        ModelFile::BuiltIn => return Ok(vec![installed("part of the program".into())]),
        ModelFile::Found(path) if library.open(entry).is_ok() => {
            return Ok(vec![installed(path.display().to_string())]);
        }
        _ => {}
    }
    let Some(address) = &manifest.download else {
        let (name, page) = (name.to_owned(), manifest.source.clone());
        return Err(refused(ModelError::NoAddress { name, page }));
    };
    let bytes = get(address).map_err(refused)?;
    let found = FileDigest::of(&bytes);
    if found != manifest.digest {
        let (what, name, expected) = (address.clone(), name.to_owned(), manifest.digest);
        return Err(refused(ModelError::Digest { what, name, found, expected }));
    }
    Ok(vec![install(&bytes, manifest, None, folder)?])
}

/// By https alone, wherever it is sent on to.
fn download(address: &str) -> Result<Vec<u8>, ModelError> {
    let failed = |message: String| ModelError::Unreachable { address: address.into(), message };
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .https_only(true)
        .timeout_global(Some(PATIENCE))
        .timeout_connect(Some(Duration::from_secs(20)))
        .user_agent("veilmatch")
        .build()
        .into();
    let response = agent.get(address).call().map_err(|error| failed(error.to_string()))?;
    let mut bytes = Vec::new();
    let mut body = response.into_body().into_reader().take(MAX_DOWNLOAD);
    body.read_to_end(&mut bytes).map_err(|error| failed(error.to_string()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;
    use veilmatch_extract::TaskKind;

    /// A model's file, its manifest, and a library of an empty folder.
    fn own() -> (TempDir, PathBuf, PathBuf, PathBuf) {
        let folder = TempDir::new().unwrap();
        let (file, manifest) = (folder.path().join("mine.onnx"), folder.path().join("mine.toml"));
        fs::write(&file, b"a model").unwrap();
        let text = include_str!("../../../../models/yunet-2023mar.toml")
            .replace("\"yunet-2023mar\"", "\"mine\"")
            .replace("face_detection_yunet_2023mar.onnx\"\nsha256", "mine.onnx\"\nsha256")
            .replace(
                "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
                &FileDigest::of(b"a model").to_string(),
            );
        fs::write(&manifest, text).unwrap();
        let to = folder.path().join("deep/models");
        (folder, file, manifest, to)
    }

    fn reason<T>(result: Result<T, CliError>) -> (String, u8) {
        let error = result.err().unwrap();
        (error.reason().to_owned(), error.exit_code())
    }

    #[test]
    fn a_file_gets_in_with_its_manifest_and_is_found() {
        let (_folder, file, manifest, to) = own();
        let empty = Library::of(Vec::new());
        assert_eq!(reason(add(&file, None, &empty, &to)), ("unknown-model-file".into(), 2));
        assert!(!to.exists());
        let added = add(&file, Some(&manifest), &empty, &to).unwrap();
        assert_eq!((added[0].name.as_str(), added[0].task.as_str()), ("mine", "detect"));
        let library = Library::of(vec![to.clone()]);
        assert_eq!(library.choose(None, TaskKind::Detect).unwrap().bytes, b"a model");
        // Now its digest is known, and adding it again changes nothing.
        assert_eq!(add(&file, None, &library, &to).unwrap(), added);
        fs::write(&file, b"another model").unwrap();
        assert_eq!(reason(add(&file, Some(&manifest), &empty, &to)), ("wrong-model-file".into(), 2));
        assert_eq!(reason(add(&to.join("nothing"), None, &empty, &to)), ("model-unreadable".into(), 2));
    }

    #[test]
    fn a_name_stands_for_one_model() {
        let (_folder, file, manifest, to) = own();
        let text = fs::read_to_string(&manifest).unwrap();
        fs::write(&manifest, text.replace("\"mine.onnx\"", "\"yunet.onnx\"")).unwrap();
        assert_eq!(reason(add(&file, Some(&manifest), &Library::of(Vec::new()), &to)), ("model-name-taken".into(), 2));
        fs::write(&manifest, text.replace("\"mine\"", "\"yunet\"")).unwrap();
        assert_eq!(reason(add(&file, Some(&manifest), &Library::of(Vec::new()), &to)), ("model-name-taken".into(), 2));
    }

    #[test]
    fn what_is_pulled_is_kept_only_if_it_is_the_model() {
        let (_folder, file, manifest, to) = own();
        // The manifest alone is there.
        fs::create_dir_all(&to).unwrap();
        fs::copy(&manifest, to.join("mine.toml")).unwrap();
        let library = || Library::of(vec![to.clone()]);
        let wrong = pull("mine", &library(), &to, &|_| Ok(b"an error page".to_vec()));
        assert_eq!(reason(wrong), ("wrong-model-file".into(), 2));
        assert!(matches!(library().entry("mine").unwrap().file, ModelFile::Missing));
        let offline = pull("mine", &library(), &to, &|address| {
            Err(ModelError::Unreachable { address: address.into(), message: "no route".into() })
        });
        let error = offline.err().unwrap();
        assert_eq!((error.reason(), error.exit_code()), ("cannot-download", 3));
        assert!(error.advice().contains("veilmatch models add FILE"));
        pull("mine", &library(), &to, &|_| Ok(fs::read(&file).unwrap())).unwrap();
        assert!(library().open(library().entry("mine").unwrap()).is_ok());
        // It is there and good: nobody is asked.
        pull("mine", &library(), &to, &|_| panic!("asked again")).unwrap();
        pull("tiny-embed", &library(), &to, &|_| panic!("asked for what is part of the program")).unwrap();
        assert_eq!(reason(pull("retail0095", &library(), &to, &|_| panic!("asked"))), ("no-download".into(), 2));
        assert_eq!(reason(pull("resnet", &library(), &to, &|_| panic!("asked"))), ("unknown-model".into(), 2));
    }

    #[test]
    fn nobody_answers_is_an_error_with_the_address() {
        let said = download("https://127.0.0.1:1/model.onnx").err().unwrap();
        assert!(said.to_string().starts_with("cannot download https://127.0.0.1:1/model.onnx: "), "{said}");
        // Never without encryption.
        assert!(download("http://127.0.0.1:1/model.onnx").is_err());
    }
}
