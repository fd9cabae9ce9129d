//! rten behind the interface of a run-time.

use std::sync::Arc;

use rten::{Model, ModelOptions, NodeId, RunOptions, ThreadPool, ValueOrView};
use rten_tensor::prelude::*;
use rten_tensor::{Tensor as Owned, TensorView};

use super::{Runtime, RuntimeError, RuntimeName, Session, Tensor};

pub(super) struct Pure {
    threads: Arc<ThreadPool>,
}

impl Pure {
    pub(super) fn new(threads: usize) -> Self {
        Self { threads: Arc::new(ThreadPool::with_num_threads(threads)) }
    }
}

impl Runtime for Pure {
    fn name(&self) -> RuntimeName {
        RuntimeName::Rust
    }

    fn describe(&self) -> String {
        "rust (rten, built in)".to_owned()
    }

    fn load(&self, model: &[u8]) -> Result<Box<dyn Session>, RuntimeError> {
        let refused = |message: String| RuntimeError::Model { runtime: RuntimeName::Rust, message };
        let model = ModelOptions::with_all_ops()
            .prepack_weights(true)
            .load(model.to_vec())
            .map_err(|error| refused(error.to_string()))?;
        let named = |ids: &[NodeId]| -> Result<Vec<String>, RuntimeError> {
            ids.iter()
                .map(|&id| model.node_info(id).and_then(|node| node.name().map(str::to_owned)))
                .collect::<Option<_>>()
                .ok_or_else(|| refused("an input or output has no name".to_owned()))
        };
        let (inputs, outputs) = (named(model.input_ids())?, named(model.output_ids())?);
        if inputs.is_empty() || outputs.is_empty() {
            return Err(refused("it has no input or no output".to_owned()));
        }
        Ok(Box::new(Loaded { model, inputs, outputs, threads: Arc::clone(&self.threads) }))
    }
}

struct Loaded {
    model: Model,
    inputs: Vec<String>,
    outputs: Vec<String>,
    threads: Arc<ThreadPool>,
}

impl Session for Loaded {
    fn inputs(&self) -> &[String] {
        &self.inputs
    }

    fn outputs(&self) -> &[String] {
        &self.outputs
    }

    fn run(&self, inputs: &[(&str, &Tensor)]) -> Result<Vec<(String, Tensor)>, RuntimeError> {
        let failed = |message: String| RuntimeError::Run { runtime: RuntimeName::Rust, message };
        let mut given: Vec<(NodeId, ValueOrView<'_>)> = Vec::with_capacity(inputs.len());
        for (name, tensor) in inputs {
            let place = self.inputs.iter().position(|known| known == name);
            let node = place.and_then(|place| self.model.input_ids().get(place));
            let node = node.ok_or_else(|| RuntimeError::Input { name: (*name).to_owned() })?;
            given.push((*node, TensorView::from_data(tensor.shape(), tensor.values()).into()));
        }
        let options = RunOptions::default().with_thread_pool(Some(Arc::clone(&self.threads)));
        let values =
            self.model.run(given, self.model.output_ids(), Some(options)).map_err(|error| failed(error.to_string()))?;
        self.outputs
            .iter()
            .zip(values)
            .map(|(name, value)| {
                let value: Owned<f32> =
                    value.into_tensor().ok_or_else(|| RuntimeError::Output { name: name.clone() })?;
                let shape = value.shape().to_vec();
                Ok((name.clone(), Tensor::new(shape, value.into_data())?))
            })
            .collect()
    }
}
