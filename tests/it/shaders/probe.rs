//! The kernels that ask a driver at opening: what every variant must satisfy, and the one layout
//! that all are bound by.

use std::collections::BTreeSet;

use naga::valid::Capabilities;
use naga::{AddressSpace, ArraySize, StorageAccess, TypeInner};
use syncbn::device::FastPaths;
use syncbn::low_level::probe::{INPUTS, Params, Question};
use syncbn::low_level::shaders::{Access, Binding, Dialect, ParamsLayout, Role, Variant};
use syncbn::wgpu;

use super::cancellation::{Exempt, cancellations};
use super::check::{self, Interface, Shader, is_storage};
use super::{GRADIENT_FROM_STATISTICS, pipeline, uniformity};

/// Inputs and the answer, behind the parameters at 0.
const SLOTS: [(u32, Access); INPUTS + 1] = [
    (1, Access::Read),
    (2, Access::Read),
    (3, Access::Read),
    (4, Access::Read),
    (5, Access::Write),
];

/// What a question needs of a device: nothing, unless it asks about that very feature.
fn needed(question: Question) -> (Capabilities, wgpu::Features) {
    match question {
        Question::Subgroups => (Capabilities::SUBGROUP, wgpu::Features::SUBGROUP),
        // What wgpu offers on all but few devices.
        Question::NativeF16 | Question::Rounding => {
            (Capabilities::SHADER_FLOAT16_IN_FLOAT32, wgpu::Features::empty())
        }
        _ => (Capabilities::empty(), wgpu::Features::empty()),
    }
}

fn parsed(question: Question) -> Shader {
    Shader::parse_with(&question.source(), needed(question).0)
        .unwrap_or_else(|error| panic!("{question:?}: {error}"))
}

/// What of a shader's bindings is not as `gpu` binds it.
fn misbound(shader: &Shader) -> Vec<String> {
    let mut found = Vec::new();
    for (_, global) in shader.globals(|space| is_storage(space) || space == AddressSpace::Uniform) {
        let slot = global.binding.map(|at| (at.group, at.binding));
        let access = match global.space {
            AddressSpace::Storage { access } if access.contains(StorageAccess::STORE) => {
                Some(Access::Write)
            }
            AddressSpace::Storage { .. } => Some(Access::Read),
            _ => None,
        };
        let is_bound = match access {
            Some(access) => {
                SLOTS.iter().any(|&(number, tabled)| (slot, access) == (Some((0, number)), tabled))
            }
            None => {
                let TypeInner::Struct { span, .. } = shader.inner(global.ty) else {
                    panic!("no parameter struct")
                };
                slot == Some((0, 0)) && *span as usize == size_of::<Params>()
            }
        };
        if !is_bound {
            found.push(format!("{:?} at {slot:?}, {access:?}", global.name));
        }
    }
    found
}

#[test]
fn every_question_validates_within_the_portable_limits_but_for_what_it_asks_about() {
    for question in Question::ALL {
        let shader = parsed(question);
        assert_eq!(check::limits(&shader), [""; 0], "{question:?}");
        assert_eq!(uniformity::misplaced_barriers(&shader), [""; 0], "{question:?}");
        let (capabilities, _) = needed(question);
        assert_eq!(
            Shader::parse(&question.source()).is_err(),
            !capabilities.is_empty(),
            "{question:?}"
        );
        let without_features = question.is_asked(FastPaths::NONE);
        assert_eq!(
            without_features,
            capabilities.is_empty(),
            "a device without a feature is not asked about it"
        );
    }
}

#[test]
fn every_question_is_bound_by_one_layout() {
    for question in Question::ALL {
        assert_eq!(misbound(&parsed(question)), [""; 0], "{question:?}");
        let bindings = SLOTS.map(|(_, access)| Binding {
            role: Role::Input,
            name: "",
            access,
            element_bytes: Some(16),
        });
        let size_bytes = size_of::<Params>() as u32;
        let params =
            ParamsLayout { name: "ProbeParams", size_bytes, fields: &[], declarations: &[] };
        let interface = Interface {
            params,
            bindings: bindings.to_vec(),
            undeclared: None,
            shared_buffer: false,
            lengths: None,
        };
        let device = pipeline::device(needed(question).1);
        assert_eq!(
            pipeline::refusal(&device, &question.source(), &interface),
            None,
            "{question:?}"
        );
    }
}

#[test]
fn a_binding_that_is_not_in_the_layout_is_found() {
    let source = Question::Forward.source();
    assert!(misbound(&Shader::parse(&source).unwrap()).is_empty());
    let planted = [
        ("@binding(2) var<storage, read>", "@binding(6) var<storage, read>"),
        ("@group(0) @binding(1)", "@group(1) @binding(1)"),
        ("@binding(1) var<storage, read>", "@binding(1) var<storage, read_write>"),
        ("values: u32,", "values: u32, more: u32,"),
    ];
    for (from, to) in planted {
        assert!(source.contains(from), "{from}");
        let shader = Shader::parse(&source.replacen(from, to, 1)).unwrap();
        assert_eq!(misbound(&shader).len(), 1, "{to}");
    }
}

/// Elements of the inputs and of the answer; `None` where a kernel declares no such binding.
fn elements(question: Question) -> [Option<usize>; INPUTS + 1] {
    const INVOCATIONS: usize = 256;
    /// A channel for each invocation.
    const CHANNELS: usize = INVOCATIONS;
    const VALUES: usize = 4 * CHANNELS;
    let of_pass = |answer| [CHANNELS, VALUES, CHANNELS, CHANNELS, answer].map(Some);
    match question {
        Question::Subgroups => [None, None, None, None, Some(2 * INVOCATIONS * 4)],
        Question::NativeF16 => [Some(1 << 15), Some(1 << 14), None, None, Some(1 << 16)],
        Question::Rounding => [1 << 16, 1 << 16, 0, 0, 1 << 16].map(|n| (n > 0).then_some(n)),
        Question::Forward => of_pass(VALUES),
        Question::Backward => of_pass(2 * VALUES),
        Question::Arithmetic => {
            [Some(INVOCATIONS), Some(INVOCATIONS), None, None, Some(7 * INVOCATIONS)]
        }
    }
}

/// Bytes of the inputs and of the answer as `gpu` binds them.
fn bound_bytes(question: Question) -> [usize; INPUTS + 1] {
    let inputs = question.inputs();
    std::array::from_fn(|index| 4 * inputs.get(index).map_or(question.answer_words(), Vec::len))
}

/// The bindings of which as many elements as the question has are not what is bound.
fn missized(shader: &Shader, question: Question, bound: [usize; INPUTS + 1]) -> Vec<String> {
    let storage = shader.globals(is_storage);
    let stride = |number| {
        let (_, global) = storage
            .iter()
            .find(|(_, global)| global.binding.is_some_and(|at| at.binding == number))?;
        match *shader.inner(global.ty) {
            TypeInner::Array { size: ArraySize::Dynamic, stride, .. } => Some(stride as usize),
            _ => panic!("{:?} is no array without a size", global.name),
        }
    };
    let mut found = Vec::new();
    for (((number, _), elements), bytes) in SLOTS.into_iter().zip(elements(question)).zip(bound) {
        let read = stride(number).zip(elements).map(|(stride, elements)| stride * elements);
        if stride(number).is_some() != elements.is_some() || read.is_some_and(|read| read != bytes)
        {
            found.push(format!(
                "{elements:?} elements of {:?} bytes at {number}, bound: {bytes}",
                stride(number)
            ));
        }
    }
    found
}

#[test]
fn every_binding_has_the_elements_that_its_kernel_reads_or_writes() {
    for question in Question::ALL {
        assert_eq!(
            missized(&parsed(question), question, bound_bytes(question)),
            [""; 0],
            "{question:?}"
        );
    }
}

#[test]
fn a_binding_that_is_a_word_short_is_found() {
    for question in Question::ALL {
        let shader = parsed(question);
        for (index, _) in
            elements(question).iter().enumerate().filter(|(_, elements)| elements.is_some())
        {
            let mut bound = bound_bytes(question);
            bound[index] -= 4;
            assert_eq!(missized(&shader, question, bound).len(), 1, "{question:?}, input {index}");
        }
    }
    // A field that the host does not know, and a binding that it has no elements for.
    for question in [Question::Forward, Question::Backward] {
        let source = question.source();
        let longer = source.replacen("inv_std: f32,", "inv_std: f32, more: f32,", 1);
        assert_ne!(longer, source);
        let found = missized(&Shader::parse(&longer).unwrap(), question, bound_bytes(question));
        assert_eq!(found, ["Some(256) elements of Some(20) bytes at 1, bound: 4096"]);
    }
    let without = Question::Arithmetic;
    let source = format!(
        "{}\n@group(0) @binding(3) var<storage, read> more: array<f32>;\n",
        without.source()
    );
    assert_eq!(missized(&Shader::parse(&source).unwrap(), without, bound_bytes(without)).len(), 1);
}

/// What the questions about arithmetic leave to the compiler, because that is what they ask.
const EXEMPT: &[Exempt] = &[
    Exempt {
        function: "main",
        line: "value.large - (value.large + value.small)",
        reason: "asks whether a sum is regrouped where nothing forbids it",
    },
    Exempt {
        function: "main",
        line: "other_value.large - settled_f32(other_value.large + other_value.small)",
        reason: "asks whether the barrier that it subtracts is enough by itself",
    },
    Exempt {
        function: "main",
        line: "value.infinity - other_value.infinity",
        reason: "asks whether a NaN is taken for impossible",
    },
    GRADIENT_FROM_STATISTICS,
];

#[test]
fn no_question_has_a_difference_that_a_compiler_may_take_apart_but_those_it_asks_about() {
    let mut used = BTreeSet::new();
    for question in Question::ALL {
        let (found, exempt) = cancellations(&parsed(question), EXEMPT);
        assert_eq!(found, [""; 0], "{question:?}");
        used.extend(exempt);
    }
    assert_eq!(used.len(), EXEMPT.len(), "exemptions that nothing needs: those used are {used:?}");
    let (found, _) = cancellations(&parsed(Question::Arithmetic), &[]);
    assert_eq!(found.len(), 3, "{found:?}");
}

/// The source of a function: from its name to the first brace that is not indented.
fn function<'a>(source: &'a str, name: &str) -> &'a str {
    let start = source.find(&format!("fn {name}(")).unwrap_or_else(|| panic!("no {name}"));
    &source[start..start + source[start..].find("\n}\n").unwrap()]
}

#[test]
fn both_passes_form_what_is_activated_by_the_source_of_the_kernels() {
    // A kernel that adds a residual before an activation.
    let source = |variant: &Variant| variant.source_in(Dialect::Glsl430);
    let is_full = |source: &String| {
        source.contains("return load_residual") && source.contains("is_active(v) | is_nan(v)")
    };
    let kernel = Variant::all()
        .iter()
        .map(source)
        .find(is_full)
        .expect("normalize with an activation and a residual");
    for name in
        ["value_of", "value_with", "residual_at", "is_active", "scaled_by_slope", "affine_of"]
    {
        for question in [Question::Forward, Question::Backward] {
            assert_eq!(function(&question.source(), name), function(&kernel, name), "{question:?}");
        }
    }
    assert_eq!(function(&Question::Forward.source(), "activated"), function(&kernel, "activated"));
    let has_gradient = |source: &String| {
        source.contains("g - from_statistics") && source.contains("alias V = f32;")
    };
    let kernel = Variant::all()
        .iter()
        .map(source)
        .find(has_gradient)
        .expect("grad_input with statistics of the batch");
    for name in ["gradient_of", "deviation_of"] {
        assert_eq!(function(&Question::Backward.source(), name), function(&kernel, name));
    }
    assert_ne!(Question::Forward.source(), Question::Backward.source());
}
