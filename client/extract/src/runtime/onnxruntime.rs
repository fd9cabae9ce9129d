//! ONNX Runtime behind the interface of a run-time, loaded when it is first asked for.
//!
//! Where the library is looked for, in this order: the file that `VEILMATCH_ONNXRUNTIME` names, the file that
//! `ORT_DYLIB_PATH` names, `libonnxruntime.so` and `libonnxruntime.so.1` where the system's loader looks. If a variable
//! is set, that file is the only one tried. A process has one environment: the first attempt counts for all.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ort::environment::Environment;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{Session as Ort, SessionInputValue};
use ort::value::TensorRef;

use super::{Runtime, RuntimeError, RuntimeName, Session, Tensor};

/// Variables that name the file of the library.
const VARIABLES: [&str; 2] = ["VEILMATCH_ONNXRUNTIME", "ORT_DYLIB_PATH"];
/// What the system's loader is asked for.
#[cfg(target_os = "macos")]
const NAMES: [&str; 1] = ["libonnxruntime.dylib"];
#[cfg(not(target_os = "macos"))]
const NAMES: [&str; 2] = ["libonnxruntime.so", "libonnxruntime.so.1"];

#[derive(Clone)]
struct Opened {
    environment: Environment,
    from: PathBuf,
}

static OPENED: OnceLock<Result<Opened, RuntimeError>> = OnceLock::new();

pub(super) struct Library {
    opened: Opened,
    threads: usize,
}

impl Library {
    pub(super) fn new(threads: usize) -> Result<Self, RuntimeError> {
        let opened = OPENED.get_or_init(|| open(&candidates())).clone()?;
        Ok(Self { opened, threads })
    }
}

/// The files to try.
fn candidates() -> Vec<PathBuf> {
    let named = VARIABLES.iter().find_map(std::env::var_os).filter(|value| !value.is_empty());
    named.map_or_else(|| NAMES.iter().map(PathBuf::from).collect(), |file| vec![PathBuf::from(file)])
}

fn open(candidates: &[PathBuf]) -> Result<Opened, RuntimeError> {
    let mut tried = Vec::new();
    for from in candidates {
        // The loader reports a missing symbol or a version that is too old as an error; nothing below it panics then.
        match ort::init_from(from) {
            Ok(builder) => {
                let builder = builder
                    .with_name("veilmatch")
                    .with_telemetry(false)
                    // The library would write to standard error; errors come back as values, warnings help nobody here.
                    .with_logger(Arc::new(|_, _, _, _, _| {}));
                // A library that is another one than its version says has no table of functions, and the loader panics.
                let built = catch_unwind(AssertUnwindSafe(|| builder.build()));
                let built = built.map_err(|_| "it is not what its version says".to_owned());
                let built = built.and_then(|built| built.map_err(|error| error.to_string()));
                return match built {
                    Ok(environment) => Ok(Opened { environment, from: from.clone() }),
                    Err(error) => Err(RuntimeError::Unavailable { tried: format!("{}: {error}", from.display()) }),
                };
            }
            Err(error) => tried.push(error.to_string()),
        }
    }
    Err(RuntimeError::Unavailable { tried: tried.join("; ") })
}

impl Runtime for Library {
    fn name(&self) -> RuntimeName {
        RuntimeName::OnnxRuntime
    }

    fn describe(&self) -> String {
        format!("onnxruntime ({})", self.opened.from.display())
    }

    fn load(&self, model: &[u8]) -> Result<Box<dyn Session>, RuntimeError> {
        let source = Source { opened: self.opened.clone(), threads: self.threads, model: model.into() };
        let first = source.session()?;
        let names = |outlets: &[ort::value::Outlet]| outlets.iter().map(|outlet| outlet.name().to_owned()).collect();
        let (inputs, outputs): (Vec<String>, Vec<String>) = (names(first.inputs()), names(first.outputs()));
        if inputs.is_empty() || outputs.is_empty() {
            let message = "it has no input or no output".to_owned();
            return Err(RuntimeError::Model { runtime: RuntimeName::OnnxRuntime, message });
        }
        Ok(Box::new(Loaded { source, idle: Mutex::new(vec![first]), inputs, outputs }))
    }
}

/// What sessions are made from.
struct Source {
    opened: Opened,
    threads: usize,
    model: Arc<[u8]>,
}

impl Source {
    fn session(&self) -> Result<Ort, RuntimeError> {
        let refused = |message: String| RuntimeError::Model { runtime: RuntimeName::OnnxRuntime, message };
        let set = |error: ort::Error<SessionBuilder>| refused(error.to_string());
        let builder = Ort::builder(&self.opened.environment).map_err(|error| refused(error.to_string()))?;
        let builder = builder.with_optimization_level(GraphOptimizationLevel::All).map_err(set)?;
        let builder = builder.with_intra_threads(self.threads).map_err(set)?;
        // Idle threads that spin take the cores from whoever shares them.
        let mut builder = builder.with_intra_op_spinning(false).map_err(set)?;
        builder.commit_from_memory(&self.model).map_err(|error| refused(error.to_string()))
    }
}

/// A session runs one input at a time, so there are as many as threads ask at once.
struct Loaded {
    source: Source,
    idle: Mutex<Vec<Ort>>,
    inputs: Vec<String>,
    outputs: Vec<String>,
}

impl Loaded {
    fn with(&self, session: &mut Ort, inputs: &[(&str, &Tensor)]) -> Result<Vec<(String, Tensor)>, RuntimeError> {
        let failed =
            |error: ort::Error| RuntimeError::Run { runtime: RuntimeName::OnnxRuntime, message: error.to_string() };
        let mut given: Vec<(String, SessionInputValue<'_>)> = Vec::with_capacity(inputs.len());
        for (name, tensor) in inputs {
            if !self.inputs.iter().any(|known| known == name) {
                return Err(RuntimeError::Input { name: (*name).to_owned() });
            }
            let view = TensorRef::from_array_view((tensor.shape().to_vec(), tensor.values())).map_err(failed)?;
            given.push(((*name).to_owned(), view.into()));
        }
        let results = session.run(given).map_err(failed)?;
        self.outputs
            .iter()
            .map(|name| {
                let absent = || RuntimeError::Output { name: name.clone() };
                let value = results.get(name).ok_or_else(absent)?;
                let (shape, values) = value.try_extract_tensor::<f32>().map_err(|_| absent())?;
                let shape = shape.iter().map(|&side| usize::try_from(side).unwrap_or(0)).collect();
                Ok((name.clone(), Tensor::new(shape, values.to_vec())?))
            })
            .collect()
    }
}

impl Session for Loaded {
    fn inputs(&self) -> &[String] {
        &self.inputs
    }

    fn outputs(&self) -> &[String] {
        &self.outputs
    }

    fn run(&self, inputs: &[(&str, &Tensor)]) -> Result<Vec<(String, Tensor)>, RuntimeError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut session = match idle {
            Some(session) => session,
            None => self.source.session()?,
        };
        let results = self.with(&mut session, inputs);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
        results
    }
}
