//! Running a model: named float tensors in, named float tensors out, on one of two run-times behind one interface.
//!
//! *ONNX Runtime* is loaded from a shared library where one is installed; nothing is linked and nothing is downloaded.
//! *rten* is Rust alone and is always there. Both run every model that the manifests in `models/` name, with outputs
//! equal to 1e-3 (tested); which one ran is a matter of speed.

#[cfg(feature = "onnxruntime")]
mod onnxruntime;
mod pure;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use zeroize::Zeroizing;

/// A run-time: turns the bytes of a model into a [`Session`].
pub trait Runtime: Send + Sync {
    /// Which one it is.
    fn name(&self) -> RuntimeName;

    /// One line for people: name, version and where it comes from.
    fn describe(&self) -> String;

    /// Reads a model in ONNX format.
    ///
    /// # Errors
    /// [`RuntimeError::Model`] if the bytes are no model, or it uses an operator that the run-time does not know.
    fn load(&self, model: &[u8]) -> Result<Box<dyn Session>, RuntimeError>;
}

/// A loaded model. Any number of threads may use it at once.
pub trait Session: Send + Sync {
    /// Names of the inputs, in the model's order.
    fn inputs(&self) -> &[String];

    /// Names of the outputs, in the model's order.
    fn outputs(&self) -> &[String];

    /// Runs the model and returns all its outputs, in the model's order.
    ///
    /// # Errors
    /// [`RuntimeError::Input`] for an input that the model does not have, [`RuntimeError::Run`] if the run-time fails
    /// (a wrong shape among other things), [`RuntimeError::Output`] if an output does not hold floats.
    fn run(&self, inputs: &[(&str, &Tensor)]) -> Result<Vec<(String, Tensor)>, RuntimeError>;
}

/// A dense tensor of floats in row-major order. It is what a photo becomes, so it is wiped on drop and has no `Debug`.
pub struct Tensor {
    shape: Vec<usize>,
    values: Zeroizing<Vec<f32>>,
}

impl Tensor {
    /// A tensor of this shape.
    ///
    /// # Errors
    /// [`RuntimeError::Shape`] if the number of values is not the product of the shape.
    pub fn new(shape: Vec<usize>, values: Vec<f32>) -> Result<Self, RuntimeError> {
        let values = Zeroizing::new(values);
        let expected = shape.iter().try_fold(1_usize, |product, &side| product.checked_mul(side));
        if expected != Some(values.len()) {
            return Err(RuntimeError::Shape { shape, values: values.len() });
        }
        Ok(Self { shape, values })
    }

    /// The length of every axis.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The values.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}

/// The two run-times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuntimeName {
    /// ONNX Runtime, loaded from a shared library.
    OnnxRuntime,
    /// rten: Rust alone.
    Rust,
}

impl RuntimeName {
    /// The word that commands and reports use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OnnxRuntime => "onnxruntime",
            Self::Rust => "rust",
        }
    }
}

impl fmt::Display for RuntimeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which run-time to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RuntimeChoice {
    /// ONNX Runtime if the library is found and new enough, else rten.
    #[default]
    Auto,
    /// ONNX Runtime or an error that says what is missing.
    OnnxRuntime,
    /// rten.
    Rust,
}

impl RuntimeChoice {
    /// All of them, as words.
    pub const WORDS: [&'static str; 3] = ["auto", "onnxruntime", "rust"];

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::OnnxRuntime => "onnxruntime",
            Self::Rust => "rust",
        }
    }
}

impl FromStr for RuntimeChoice {
    type Err = RuntimeError;

    fn from_str(word: &str) -> Result<Self, RuntimeError> {
        match word {
            "auto" => Ok(Self::Auto),
            "onnxruntime" => Ok(Self::OnnxRuntime),
            "rust" => Ok(Self::Rust),
            _ => Err(RuntimeError::Unknown { word: word.to_owned() }),
        }
    }
}

impl fmt::Display for RuntimeChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Opens a run-time. `threads` is how many threads may work on one model at a time; 0 means one per core.
///
/// # Errors
/// [`RuntimeError::Unavailable`] if ONNX Runtime was asked for by name and cannot be loaded.
pub fn open(choice: RuntimeChoice, threads: usize) -> Result<Arc<dyn Runtime>, RuntimeError> {
    let threads =
        if threads == 0 { std::thread::available_parallelism().map_or(1, std::num::NonZero::get) } else { threads };
    match choice {
        RuntimeChoice::Rust => Ok(Arc::new(pure::Pure::new(threads))),
        RuntimeChoice::OnnxRuntime => library(threads),
        RuntimeChoice::Auto => library(threads).or_else(|_| Ok(Arc::new(pure::Pure::new(threads)) as Arc<dyn Runtime>)),
    }
}

#[cfg(feature = "onnxruntime")]
fn library(threads: usize) -> Result<Arc<dyn Runtime>, RuntimeError> {
    Ok(Arc::new(onnxruntime::Library::new(threads)?))
}

#[cfg(not(feature = "onnxruntime"))]
fn library(_threads: usize) -> Result<Arc<dyn Runtime>, RuntimeError> {
    Err(RuntimeError::Unavailable { tried: "this build was made without the feature `onnxruntime`".into() })
}

/// Why a model could not be loaded or run. No value of a tensor is ever part of the message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// No such run-time.
    #[error("there is no run-time {word:?}: auto, onnxruntime, rust")]
    Unknown {
        /// What was asked for.
        word: String,
    },
    /// The library of ONNX Runtime is missing, or too old.
    #[error("ONNX Runtime is not available: {tried}")]
    Unavailable {
        /// What was tried, and what came of it.
        tried: String,
    },
    /// The bytes are not a model that the run-time can read.
    #[error("{runtime} cannot read the model: {message}")]
    Model {
        /// The run-time.
        runtime: RuntimeName,
        /// Its own words.
        message: String,
    },
    /// The model has no input of that name.
    #[error("the model has no input {name:?}")]
    Input {
        /// The name.
        name: String,
    },
    /// An output is missing or does not hold floats.
    #[error("the model gives no float output {name:?}")]
    Output {
        /// The name.
        name: String,
    },
    /// An output has another shape than its manifest says.
    #[error("output {name:?} has shape {found:?}, not {expected}")]
    OutputShape {
        /// The name.
        name: String,
        /// What came.
        found: Vec<usize>,
        /// What the manifest implies.
        expected: String,
    },
    /// A tensor whose shape and values do not fit.
    #[error("{values} values in a tensor of shape {shape:?}")]
    Shape {
        /// The shape.
        shape: Vec<usize>,
        /// The number of values.
        values: usize,
    },
    /// The run-time failed.
    #[error("{runtime} failed: {message}")]
    Run {
        /// The run-time.
        runtime: RuntimeName,
        /// Its own words.
        message: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back_and_others_are_refused() {
        for word in RuntimeChoice::WORDS {
            assert_eq!(word.parse::<RuntimeChoice>().unwrap().to_string(), word);
        }
        let refusal = "cuda".parse::<RuntimeChoice>().unwrap_err();
        assert_eq!(refusal.to_string(), "there is no run-time \"cuda\": auto, onnxruntime, rust");
    }

    #[test]
    fn a_tensor_has_as_many_values_as_its_shape_says() {
        assert!(Tensor::new(vec![2, 3], vec![0.0; 6]).is_ok());
        for (shape, values) in [(vec![2, 3], 5), (vec![usize::MAX, 2], 6), (vec![0], 1)] {
            assert!(matches!(Tensor::new(shape, vec![0.0; values]), Err(RuntimeError::Shape { .. })));
        }
    }

    #[test]
    fn what_is_no_model_is_an_error_in_every_run_time() {
        for choice in [RuntimeChoice::Rust, RuntimeChoice::Auto] {
            let runtime = open(choice, 1).unwrap();
            for bytes in [&b""[..], b"not a model", &[8, 6, 18, 7, 112, 121]] {
                assert!(
                    matches!(runtime.load(bytes), Err(RuntimeError::Model { .. })),
                    "{} took {bytes:?}",
                    runtime.describe()
                );
            }
        }
    }
}
