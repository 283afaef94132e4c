//! Choices between integers, which GLSL before 4.50 does not have by vectors: there `mix` takes
//! floats only, and naga writes it for a `select` by a vector of conditions.

use naga::{Expression, ScalarKind};

use super::check::Shader;

/// Every `select` of integers, by a scalar condition too.
pub fn between_integers(shader: &Shader) -> Vec<String> {
    let mut found = Vec::new();
    let helpers =
        shader.module.functions.iter().map(|(handle, function)| (function, &shader.info[handle]));
    let entries = shader.module.entry_points.iter().enumerate();
    let entries =
        entries.map(|(index, entry)| (&entry.function, shader.info.get_entry_point(index)));
    for (function, info) in helpers.chain(entries) {
        for (handle, expression) in function.expressions.iter() {
            let is_choice = matches!(expression, Expression::Select { .. });
            let kind = info[handle].ty.inner_with(&shader.module.types).scalar_kind();
            if is_choice && matches!(kind, Some(ScalarKind::Sint | ScalarKind::Uint)) {
                let line =
                    function.expressions.get_span(handle).location(&shader.source).line_number;
                let name = function.name.as_deref().unwrap_or("main");
                found.push(format!("line {line}, in `{name}`: a choice between integers"));
            }
        }
    }
    found
}

fn planted(body: &str) -> Vec<String> {
    let source = format!(
        "@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;
         @group(0) @binding(2) var<storage, read_write> y: array<vec4<u32>>;
         fn chosen(a: u32, b: u32, is_b: bool) -> u32 {{ return a ^ ((a ^ b) & (0u - u32(is_b))); }}
         @compute @workgroup_size(256) fn main() {{ {body} }}"
    );
    between_integers(&Shader::parse(&source).unwrap_or_else(|error| panic!("{error}")))
}

#[test]
fn choices_between_integers_are_found_and_others_are_not() {
    for body in [
        "y[0] = select(x[0], x[1], x[2] == x[3]);",
        "y[0].x = select(x[0].x, x[1].x, x[2].x == 0u);",
        "y[0].x = u32(select(i32(x[0].x), 3, x[2].x == 0u));",
        "y[0] = select(x[0], x[1], x[2].x == 0u);",
    ] {
        assert_eq!(planted(body).len(), 1, "{body}: {:?}", planted(body));
    }
    for body in [
        "y[0].x = chosen(x[0].x, x[1].x, x[2].x == 0u);",
        "y[0] = bitcast<vec4<u32>>(select(vec4<f32>(x[0]), vec4<f32>(x[1]), x[2] == x[3]));",
        "if (x[2].x == 0u) { y[0] = x[1]; }",
    ] {
        assert_eq!(planted(body), [""; 0], "{body}");
    }
}

#[test]
fn the_source_for_other_drivers_chooses_between_integers() {
    let variants = syncbn::low_level::shaders::Variant::all();
    let mut portable =
        variants.iter().filter(|variant| !variant.converts_f16() && !variant.needs_subgroups());
    let chooses = |source: &str| {
        Shader::parse(source).is_ok_and(|shader| !between_integers(&shader).is_empty())
    };
    assert!(
        portable.any(|variant| chooses(&variant.source())),
        "nothing that the dialect for OpenGL has to do without"
    );
}
