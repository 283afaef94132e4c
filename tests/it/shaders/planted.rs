//! Bad shaders, one per check: each must be found, and the good one they derive from must not.
//!
//! `barriers` has those whose barriers are not in uniform control flow.

mod barriers;

use naga::valid::Capabilities;
use syncbn::low_level::shaders::{Access, Binding, ParamsLayout, Role};

use super::check::{Interface, Shader, interface, limits};
use super::pipeline;
use super::uniformity::misplaced_barriers;

/// A shader without a fault; the tests change one thing in it.
const GOOD: &str = "
struct Params { count: u32, lanes: u32, scale: f32, padding: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

var<workgroup> scratch: array<vec4<f32>, 256>;

fn exchange(lane: u32, value: f32) -> f32 {
    if (lane >= params.count) { return 0.0; }
    return value;
}

fn shared_sum(lane: u32, value: f32) -> f32 {
    scratch[lane] = vec4<f32>(value);
    workgroupBarrier();
    return scratch[0].x;
}

@compute @workgroup_size(256)
fn main(
    @builtin(local_invocation_index) lane: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    let value = exchange(lane, x[lane]);
    for (var i = 0u; i < lane; i++) { if (i > params.lanes) { break; } }
    // BODY
    y[lane] = vec4<f32>(shared_sum(lane, value) * params.scale);
}
";

fn tables() -> Interface {
    let fields = &[("count", 0), ("lanes", 4), ("scale", 8), ("padding", 12)];
    let bindings = vec![
        Binding { role: Role::Input, name: "x", access: Access::Read, element_bytes: Some(4) },
        Binding { role: Role::Output, name: "y", access: Access::Write, element_bytes: Some(16) },
    ];
    Interface {
        params: ParamsLayout { name: "Params", size_bytes: 16, fields, declarations: &[] },
        bindings,
        undeclared: None,
        shared_buffer: false,
        lengths: None,
    }
}

/// The good shader with one place replaced; naga must still accept it, or another check than the
/// one meant would bite.
fn changed(from: &str, to: &str) -> Shader {
    assert!(GOOD.contains(from), "{from}");
    Shader::parse(&GOOD.replacen(from, to, 1)).unwrap()
}

/// The good shader with statements put before its last one, where control flow is still uniform.
fn with_body(body: &str) -> Shader {
    changed("// BODY", body)
}

fn one(found: Vec<String>, expected: &str) {
    assert!(
        found.len() == 1 && found[0].contains(expected),
        "expected one finding with {expected:?}, found {found:#?}"
    );
}

const BEFORE: &str = "var<workgroup> scratch";

#[test]
fn the_good_shader_passes_every_check() {
    let shader = Shader::parse(GOOD).unwrap();
    assert_eq!(interface(&shader, &tables()), [""; 0]);
    assert_eq!(limits(&shader), [""; 0]);
    assert_eq!(misplaced_barriers(&shader), [""; 0]);
    assert_eq!(
        pipeline::refusal(&pipeline::device(wgpu::Features::empty()), GOOD, &tables()),
        None
    );
}

#[test]
fn a_shader_that_does_not_parse_or_validate_is_found() {
    assert!(Shader::parse(&GOOD.replace("params.scale", "params.scales")).is_err());
    assert!(Shader::parse(&GOOD.replace("* params.scale", "* params.lanes")).is_err());
}

/// The shader must be refused for want of a capability alone.
fn needs_a_capability(source: &str) {
    assert!(Shader::parse_with(source, Capabilities::all()).is_ok(), "{source}");
    assert!(Shader::parse(source).is_err(), "{source}");
}

#[test]
fn subgroups_half_floats_and_immediates_are_found() {
    needs_a_capability(&GOOD.replace("// BODY", "y[0] = vec4<f32>(subgroupAdd(value));"));
    let half = GOOD.replace("// BODY", "y[0] = vec4<f32>(f32(f16(value)));");
    needs_a_capability(&format!("enable f16;\n{half}"));
    needs_a_capability(
        &GOOD.replace("// BODY", "y[0] = vec4<f32>(f32(pack2x16float(vec2<f32>(value))));"),
    );
    let immediate = GOOD.replace(BEFORE, "var<immediate> extra: u32;\nvar<workgroup> scratch");
    needs_a_capability(&immediate.replace("// BODY", "y[0] = vec4<f32>(f32(extra));"));
}

#[test]
fn parameter_fields_in_another_order_are_found() {
    one(
        interface(&changed("count: u32, lanes: u32", "lanes: u32, count: u32"), &tables()),
        "parameter struct",
    );
}

#[test]
fn a_parameter_field_at_another_offset_is_found() {
    let shader = changed("count: u32, lanes: u32", "count: u32, @align(16) lanes: u32");
    one(interface(&shader, &tables()), "parameter struct");
}

#[test]
fn a_parameter_struct_of_another_size_is_found() {
    one(
        interface(&changed("padding: u32", "@size(8) padding: u32"), &tables()),
        "parameter struct",
    );
}

#[test]
fn a_parameter_struct_in_another_slot_is_found() {
    one(
        interface(&changed("@binding(0)", "@binding(3)"), &tables()),
        "binding of the parameter struct",
    );
}

#[test]
fn a_storage_buffer_of_another_name_slot_group_or_stride_is_found() {
    let renamed = Shader::parse(
        &GOOD.replace("x: array<f32>", "z: array<f32>").replace("x[lane]", "z[lane]"),
    )
    .unwrap();
    one(interface(&renamed, &tables()), "storage buffers");
    one(interface(&changed("@binding(2)", "@binding(4)"), &tables()), "storage buffers");
    one(
        interface(&changed("@group(0) @binding(2)", "@group(1) @binding(2)"), &tables()),
        "storage buffers",
    );
    let wide = GOOD.replace("x: array<f32>", "x: array<vec2<f32>>").replace("x[lane]", "x[lane].x");
    one(interface(&Shader::parse(&wide).unwrap(), &tables()), "storage buffers");
    one(interface(&changed("x: array<f32>", "x: array<f32, 256>"), &tables()), "storage buffers");
}

#[test]
fn a_storage_buffer_more_or_less_than_in_the_table_is_found() {
    let extra = "@group(0) @binding(3) var<storage, read> z: array<f32>;\nvar<workgroup> scratch";
    one(interface(&changed(BEFORE, extra), &tables()), "storage buffers");
    let mut tables = tables();
    tables.bindings.push(Binding {
        role: Role::Residual,
        name: "z",
        access: Access::Read,
        element_bytes: Some(4),
    });
    one(interface(&Shader::parse(GOOD).unwrap(), &tables), "storage buffers");
}

#[test]
fn access_other_than_the_variant_s_is_found() {
    let read_write = changed("<storage, read>", "<storage, read_write>");
    one(interface(&read_write, &tables()), "storage buffers");
    let shared = Interface { shared_buffer: true, ..tables() };
    assert_eq!(interface(&read_write, &shared), [""; 0]);
    one(interface(&Shader::parse(GOOD).unwrap(), &shared), "storage buffers");
}

#[test]
fn a_ninth_storage_buffer_is_found() {
    let declare = |number| {
        format!("@group(0) @binding({number}) var<storage, read> b{number}: array<f32>;\n")
    };
    let up_to = |last| (3..=last).map(declare).collect::<String>() + BEFORE;
    assert_eq!(limits(&changed(BEFORE, &up_to(8))), [""; 0]);
    one(limits(&changed(BEFORE, &up_to(9))), "9 storage buffers");
}

#[test]
fn a_uniform_buffer_beside_the_parameters_and_the_lengths_is_found() {
    let second = "@group(0) @binding(3) var<uniform> more: Params;\n";
    let third = "@group(0) @binding(4) var<uniform> most: Params;\nvar<workgroup> scratch";
    one(limits(&changed(BEFORE, &format!("{second}{third}"))), "3 uniform buffers");
    let second = format!("{second}var<workgroup> scratch");
    one(interface(&changed(BEFORE, &second), &tables()), "lengths");
}

#[test]
fn workgroup_memory_beyond_16_kib_is_found_where_it_is_used() {
    let big = "var<workgroup> big: array<u32, 3073>;\nvar<workgroup> scratch";
    assert_eq!(limits(&changed(BEFORE, big)), [""; 0]);
    let used =
        GOOD.replace(BEFORE, big).replace("scratch[lane] =", "big[lane] = 0u; scratch[lane] =");
    one(limits(&Shader::parse(&used).unwrap()), "16388 bytes of workgroup memory");
}

#[test]
fn another_workgroup_size_is_found() {
    one(limits(&changed("@workgroup_size(256)", "@workgroup_size(128, 2)")), "entry points");
    let found = limits(&changed("@workgroup_size(256)", "@workgroup_size(512)"));
    assert!(found.iter().any(|what| what.contains("512 invocations")), "{found:?}");
}

#[test]
fn a_second_entry_point_or_another_name_is_found() {
    one(limits(&changed("fn main(", "fn other(")), "entry points");
    let second = "@compute @workgroup_size(256) fn other() {}\nvar<workgroup> scratch";
    one(limits(&changed(BEFORE, second)), "entry points");
}

#[test]
fn an_override_is_found() {
    one(
        limits(&changed(BEFORE, "override lanes: u32 = 256u;\nvar<workgroup> scratch")),
        "override",
    );
}

#[test]
fn array_length_is_found_also_in_a_function() {
    one(
        limits(&with_body("if (lane >= arrayLength(&x)) { y[0] = vec4<f32>(); }")),
        "arrayLength in `main`",
    );
    one(
        limits(&changed("if (lane >= params.count)", "if (lane >= arrayLength(&x))")),
        "arrayLength in `exchange`",
    );
}

#[test]
fn a_layout_that_does_not_fit_the_shader_makes_no_pipeline() {
    let mut tables = tables();
    tables.bindings[1].access = Access::Read;
    let refusal = pipeline::refusal(&pipeline::device(wgpu::Features::empty()), GOOD, &tables);
    assert!(refusal.is_some_and(|words| words.contains("y") || words.contains("binding")));
}
