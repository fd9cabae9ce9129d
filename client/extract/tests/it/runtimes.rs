//! Both run-times give the same outputs on every model.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use veilmatch_extract::{Layout, Library, Runtime, RuntimeChoice, RuntimeError, Task, Tensor, open_runtime};

/// Numbers between 0 and 255 that are the same everywhere.
fn noise(count: usize, mut state: u64) -> Vec<f32> {
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as f32
        })
        .collect()
}

/// Largest difference of any output, in parts of that output's own scale; and how long each run-time took, in ms.
fn compared(one: &dyn Runtime, other: &dyn Runtime, library: &Library, name: &str) -> (f64, [f64; 2]) {
    let model = library.open(library.entry(name).unwrap()).unwrap_or_else(|error| panic!("{error}"));
    let input = &model.manifest.input;
    let (width, height) = match &model.manifest.task {
        Task::Detect(detect) => (detect.longest as usize, detect.longest as usize / 4 * 3),
        Task::Embed(embed) => (embed.size.width as usize, embed.size.height as usize),
        Task::Quality(quality) => (quality.size.width as usize, quality.size.height as usize),
        Task::Liveness(liveness) => (liveness.size.width as usize, liveness.size.height as usize),
    };
    let shape = match input.layout {
        Layout::Nchw => vec![1, 3, height, width],
        Layout::Nhwc => vec![1, height, width, 3],
    };
    let mut values = noise(3 * width * height, 42);
    values.iter_mut().for_each(|value| *value = (*value - input.mean[0]) / input.std[0]);
    let tensor = Tensor::new(shape, values).unwrap_or_else(|error| panic!("{error}"));
    let mut times = [0.0; 2];
    let mut run = |runtime: &dyn Runtime, number: usize| {
        let session = runtime.load(&model.bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(matches!(session.run(&[("no such input", &tensor)]), Err(RuntimeError::Input { .. })));
        let mut taken: Vec<f64> = Vec::new();
        let mut outputs = Vec::new();
        for _ in 0..5 {
            let began = Instant::now();
            outputs = session.run(&[(&input.name, &tensor)]).unwrap_or_else(|error| panic!("{name}: {error}"));
            taken.push(began.elapsed().as_secs_f64() * 1e3);
        }
        taken.sort_by(f64::total_cmp);
        times[number] = taken[taken.len() / 2];
        assert_eq!(session.outputs().len(), outputs.len());
        outputs
    };
    let (a, b) = (run(one, 0), run(other, 1));
    assert_eq!(a.len(), b.len(), "{name}");
    let mut worst = 0.0_f64;
    for ((name_a, a), (name_b, b)) in a.iter().zip(&b) {
        assert_eq!((name_a, a.shape()), (name_b, b.shape()), "{name}");
        let scale = a.values().iter().fold(0.0_f32, |most, value| most.max(value.abs())).max(1e-6);
        let off = a.values().iter().zip(b.values()).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()));
        worst = worst.max(f64::from(off / scale));
    }
    (worst, times)
}

#[test]
fn both_run_times_agree_on_every_model() {
    let test = "both_run_times_agree_on_every_model";
    let fast = match open_runtime(RuntimeChoice::OnnxRuntime, 1) {
        Ok(fast) => fast,
        Err(error) => return crate::left_out(test, &error.to_string()),
    };
    let pure = open_runtime(RuntimeChoice::Rust, 1).unwrap_or_else(|error| panic!("{error}"));
    let data = crate::data(test);
    let library = Library::of(data.iter().map(|data| data.join("models")).collect());
    let mut names = vec!["tiny-detect", "tiny-embed"];
    if data.is_some() {
        names.extend(["yunet", "retail0095", "lightqnet", "minifasnet_v2", "minifasnet_v1se"]);
    }
    for name in names {
        let (off, times) = compared(&*fast, &*pure, &library, name);
        said(&format!("{name}: off by {off:.1e}; onnxruntime {:.1} ms, rust {:.1} ms", times[0], times[1]));
        assert!(off < 1e-3, "{name}: outputs differ by {off} of their scale");
    }
}

#[test]
fn without_the_library_the_choice_is_rust_and_the_name_an_error() {
    // Which of the two it is depends on the machine; that neither panics does not.
    let auto = open_runtime(RuntimeChoice::Auto, 1).unwrap_or_else(|error| panic!("{error}"));
    match open_runtime(RuntimeChoice::OnnxRuntime, 1) {
        Ok(named) => assert_eq!(auto.name(), named.name()),
        Err(error) => {
            assert!(matches!(error, RuntimeError::Unavailable { .. }), "{error}");
            assert!(auto.describe().starts_with("rust"));
            said(&error.to_string());
        }
    }
}

/// The one function by which a library of ONNX Runtime is known, of a version that is too old or has nothing behind it.
fn library(folder: &Path, version: &str) -> PathBuf {
    let source = format!(
        r#"
        typedef struct {{ const void *(*api)(unsigned); const char *(*version)(void); }} Base;
        static const void *api(unsigned number) {{ (void)number; return 0; }}
        static const char *version(void) {{ return "{version}"; }}
        static const Base base = {{ api, version }};
        const Base *OrtGetApiBase(void) {{ return &base; }}
        "#
    );
    let (code, file) = (folder.join("library.c"), folder.join(format!("libonnxruntime-{version}.so")));
    std::fs::write(&code, source).unwrap();
    let status = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&file).arg(&code).status().unwrap();
    assert!(status.success());
    file
}

/// A process has one library, so each is named in the environment of a process of its own.
#[test]
fn a_library_that_cannot_be_used_is_an_error_in_words_and_never_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.so");
    let text = folder.path().join("text.so");
    std::fs::write(&text, "not a library").unwrap();
    let here = std::env::current_exe().unwrap();
    let (old, hollow) = (library(folder.path(), "1.17.3"), library(folder.path(), "1.99.0"));
    for (file, words) in [
        (&missing, "missing.so"),
        (&text, "text.so"),
        (&PathBuf::from("libc.so.6"), "libc.so.6"),
        (&old, "1.17.3"),
        (&hollow, "not what its version says"),
    ] {
        let output = Command::new(&here)
            .args(["--exact", "runtimes::without_the_library_the_choice_is_rust_and_the_name_an_error", "--nocapture"])
            .env("VEILMATCH_ONNXRUNTIME", file)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{}: {told}", file.display());
        assert!(told.contains(words) && told.contains("ONNX Runtime is not available"), "{}: {told}", file.display());
    }
}

#[expect(clippy::print_stderr, reason = "the times are worth seeing with --nocapture")]
fn said(text: &str) {
    eprintln!("{text}");
}
