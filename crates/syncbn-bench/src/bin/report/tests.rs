//! The whole report, on small inputs: on the adapter of the tests, and with wrong results on
//! purpose.

use std::error::Error;

use pollster::block_on;
use syncbn::{DType, Device, Layout, low_level::Epilogue};

use crate::check;
use crate::layers::{Layers, Merge, OnDevice, Output, Outputs};
use crate::markdown::Markdown;
use crate::options::{Effort, Options};
use crate::problem::Problem;
use crate::record::Report;
use crate::targets::Targets;
use crate::{report, run, timed};
use syncbn_bench::devices;
use syncbn_bench::inputs::Form;

/// The host, with one value of one output made wrong where a problem contains a trigger.
struct Faulty {
    output: Output,
    /// Wrong in every channel with an x above this.
    trigger: f32,
}

impl Layers for Faulty {
    fn merges(&self) -> &'static [Merge] {
        &[Merge::Host]
    }

    fn run(&self, merge: Merge, problem: &Problem) -> Result<Outputs, Box<dyn Error>> {
        let mut outputs = OnDevice(Device::host()).run(merge, problem)?;
        let above = |x: &f32| *x > self.trigger;
        let culprit = problem.ranks.iter().position(|shard| shard.x.iter().any(above));
        if let Some(rank) = culprit {
            let index = problem.ranks[rank].x.iter().position(above).unwrap_or_default();
            let [_, channels, positions] = problem.ranks[rank].dims;
            let index = if self.output.is_vector() { index / positions % channels } else { index };
            let values = outputs
                .iter_mut()
                .find(|(output, _)| *output == self.output)
                .map(|(_, ranks)| &mut ranks[rank]);
            values.expect("the output")[index] += 1.0;
        }
        Ok(outputs)
    }
}

#[test]
fn a_report_of_a_sound_device_has_every_section_and_no_failure() {
    let wanted = std::env::var("SYNCBN_TEST_ADAPTER").ok();
    let machine = block_on(devices::open(wanted.as_deref(), 1, false)).expect("a device");
    let effort = Effort { cases: 2, ..Effort::QUICK };
    let report = report(&machine, &OnDevice(machine.ranks[0].clone()), effort).expect("a report");
    assert!(report.failures.is_empty(), "{}", Markdown(&report));
    let merges = if machine.gpus.is_empty() { 1 } else { 2 };
    assert_eq!(report.conformance.len(), 2 * merges);
    assert_eq!((report.kernels.len(), report.accuracy.len()), (6 * merges, 6 * merges));
    let mut checked = report.conformance.iter().chain(&report.kernels).chain(&report.accuracy);
    assert!(checked.all(|checked| checked.passed && checked.worst.len() >= 4));
    // Seven rows and one more that merges on the device, three passes each.
    assert_eq!((report.passes.len(), report.passes_left_out), (3 * (6 + merges), 0));
    assert!(report.passes.iter().all(|timed| timed.line.copy_ratio > 0.0));
    let exchanged = report.passes.iter().filter(|timed| timed.line.exchange_us.is_some());
    assert_eq!(exchanged.count(), if machine.gpus.is_empty() { 0 } else { 2 * 7 });
    let markdown = Markdown(&report).to_string();
    assert!(markdown.contains("Everything passed.") && markdown.contains(&report.machine.name));
    let json = serde_json::to_value(&report).expect("plain data");
    for key in [
        "schema",
        "passed",
        "quick",
        "version",
        "wgpu",
        "machine",
        "conformance",
        "kernels",
        "accuracy",
        "passes",
        "failures",
        "seconds",
    ] {
        assert!(json.get(key).is_some(), "{key}");
    }
    assert!(json["passes"][0]["copy_ratio"].is_number());
    assert!(json["seconds"]["passes"].is_number());
    assert_eq!((json["passed"].as_bool(), json["quick"].as_bool()), (Some(true), Some(true)));
    assert!(report.wgpu.starts_with("30."), "{}", report.wgpu);
    assert_eq!(markdown.matches("<details>").count(), markdown.matches("</details>").count());
    assert!(
        markdown.contains("All 2 rows passed") || markdown.contains("All 4 rows passed"),
        "{markdown}"
    );
    assert!(markdown.contains("--quick") && markdown.contains(report.wgpu), "{markdown}");
    let is_gpu = report.machine.device_type != "Cpu";
    assert_eq!(markdown.contains("no GPU was found or asked for.**"), !is_gpu, "{markdown}");
    let has_limits = json["machine"]["limits"]["max_buffer_size"].is_number();
    let has_paths = json["machine"]["fast_paths"]["quads"].is_boolean();
    assert_eq!((has_limits, has_paths), (!machine.gpus.is_empty(), !machine.gpus.is_empty()));
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error_before_anything_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("absent").join("report");
    // An adapter would be looked for next, and not found.
    let adapter = Some("no adapter of this name".to_owned());
    let markdown =
        Options { markdown: Some(path.clone()), adapter: adapter.clone(), ..Options::default() };
    let json = Options { json: Some(path.clone()), adapter, ..Options::default() };
    for (option, options) in [("--markdown", markdown), ("--json", json)] {
        let error = run(&options).expect_err("no such folder").to_string();
        assert!(error.starts_with(&format!("{option} {}: ", path.display())), "{error}");
    }
}

/// A file that opens, and into which nothing can be written.
#[cfg(target_os = "linux")]
#[test]
fn a_file_that_fails_loses_nothing_else() {
    let report = report_of_the_host(&OnDevice(Device::host()));
    let folder = tempfile::tempdir().expect("a folder");
    let full = std::path::PathBuf::from("/dev/full");
    let good = folder.path().join("report");
    let mut standard = Vec::new();
    let options =
        Options { markdown: Some(full.clone()), json: Some(good.clone()), ..Options::default() };
    let errors = Targets::open(&options)
        .expect("files")
        .write(&report, &mut standard)
        .expect_err("a full device");
    assert!(
        errors.len() == 1 && errors[0].to_string().starts_with("--markdown /dev/full: "),
        "{errors:?}"
    );
    assert_eq!(String::from_utf8_lossy(&standard), Markdown(&report).to_string());
    assert!(std::fs::read_to_string(&good).expect("the JSON").starts_with('{'));

    standard.clear();
    let options = Options { markdown: Some(good.clone()), json: Some(full), ..Options::default() };
    let errors = Targets::open(&options)
        .expect("files")
        .write(&report, &mut standard)
        .expect_err("a full device");
    assert!(
        errors.len() == 1 && errors[0].to_string().starts_with("--json /dev/full: "),
        "{errors:?}"
    );
    assert!(standard.is_empty());
    assert_eq!(
        std::fs::read_to_string(&good).expect("the Markdown"),
        Markdown(&report).to_string()
    );
}

#[test]
fn the_host_has_no_empty_rows() {
    let report = report_of_the_host(&OnDevice(Device::host()));
    let markdown = Markdown(&report).to_string();
    assert!(!markdown.contains("|  |"), "{markdown}");
    assert!(
        !markdown.contains("PCI ids") && markdown.contains("**This is the host (CPU);"),
        "{markdown}"
    );
}

/// With two golden cases and nothing else but times.
fn report_of_the_host(layers: &dyn Layers) -> Report {
    let machine = block_on(devices::open(Some("host"), 1, false)).expect("the host");
    let effort = Effort { cases: 2, epilogues: 0, sizes: 0, ..Effort::QUICK };
    report(&machine, layers, effort).expect("a report")
}

#[test]
fn a_wrong_result_is_reported_with_the_smallest_input_of_it() {
    for output in [Output::Y, Output::GradInput, Output::GradWeight, Output::GradBias] {
        // Of the golden cases, that of a mean of 1e6 alone has such values.
        let found =
            check::conformance(&Faulty { output, trigger: 9e5 }, 4).expect("readable cases");
        let passed: Vec<bool> = found.checked.iter().map(|checked| checked.passed).collect();
        assert_eq!(passed, [true, false, true, true], "{output:?}");
        let [failure] = &found.failures[..] else {
            panic!("{output:?}: {} failures", found.failures.len())
        };
        let smallest = failure.smallest.as_ref().expect("a smaller input");
        // Statistics need two values, and no more is needed here.
        assert_eq!((smallest.problem.values(), smallest.problem.channels()), (2, 1), "{output:?}");
        assert_eq!(smallest.wrong.output, output);
    }
}

#[test]
fn markdown_and_json_have_the_values_of_the_smallest_input() {
    let report = report_of_the_host(&Faulty { output: Output::Y, trigger: 9e5 });
    let markdown = Markdown(&report).to_string();
    let smallest = report.failures[0].smallest.as_ref().expect("a smaller input");
    assert!(
        markdown.contains("1 FAILED") && markdown.contains(&smallest.wrong.to_string()),
        "{markdown}"
    );
    for shard in &smallest.problem.ranks {
        assert!(shard.x.iter().all(|x| markdown.contains(&format!("{x:?}"))), "{markdown}");
    }
    let json = serde_json::to_value(&report).expect("plain data");
    let x = &json["failures"][0]["smallest"]["problem"]["ranks"][0]["x"];
    assert_eq!(x.as_array().map(Vec::len), Some(smallest.problem.ranks[0].x.len()));
}

#[test]
fn a_wrong_row_is_reported_with_a_smaller_input_of_its_form() {
    let shape = &crate::sizes::smallest()[1];
    let form = Form {
        dtype: DType::F16,
        layout: Layout::ChannelsLast,
        epilogue: Epilogue::ADD_RELU,
        mask: true,
    };
    let layers = Faulty { output: Output::Y, trigger: 2.0 };
    let failure =
        timed::failure(&layers, shape, form, Merge::Host, &*Box::<dyn Error>::from("wrong"));
    let smallest = failure.smallest.expect("a smaller input").problem;
    assert_eq!(
        (smallest.dtype, smallest.layout, smallest.epilogue),
        (form.dtype, form.layout, form.epilogue)
    );
    assert_eq!(smallest.values(), 2);
    // A row that fails for another reason has none.
    let sound = OnDevice(Device::host());
    assert!(
        timed::failure(&sound, shape, form, Merge::Host, &*Box::<dyn Error>::from("lost"))
            .smallest
            .is_none()
    );
}
