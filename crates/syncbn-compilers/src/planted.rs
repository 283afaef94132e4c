//! Shaders that a judge must refuse, beside one that all must take. They show that each judge can
//! refuse.

use std::io;

use crate::folder::{Folder, Job};
use crate::translate::{Hlsl, TARGETS};
use crate::variants::{Buffer, Shader};

/// The name of the shader that every judge takes.
const GOOD: &str = "good";

/// Everything around the body of a kernel.
const HEAD: &str = "struct Params { length: u32, shift: u32, stride: u32, scale: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
var<workgroup> shared_values: array<f32, 64>;
";

/// A planted shader: its body, the judges that must refuse it, and whether `y` is bound as
/// read-only.
struct Plant {
    name: &'static str,
    body: &'static str,
    refused_by: &'static [&'static str],
    is_read_only: bool,
}

const PLANTS: &[Plant] = &[
    // Not WGSL, and naga takes it.
    Plant {
        name: "bad-precedence",
        body: "y[i] = f32(i / params.length << params.shift);",
        refused_by: &["tint"],
        is_read_only: false,
    },
    Plant {
        name: "bad-barrier",
        body: "if i < 3u { workgroupBarrier(); }\ny[i] = x[i];",
        refused_by: &["tint"],
        is_read_only: false,
    },
    // The source is good: only the pipeline does not fit.
    Plant { name: "bad-layout", body: "y[i] = x[i];", refused_by: &["tint"], is_read_only: true },
    Plant {
        name: "bad-name",
        body: "y[i] = z[i];",
        refused_by: &["tint", "naga"],
        is_read_only: false,
    },
    // Before OpenGL 4.5 there is no choice between vectors of integers.
    Plant {
        name: "bad-choice",
        body: "let chosen = select(vec2(i), vec2(params.stride), \
            vec2(x[i] > 0.0, x[0] > 0.0));\ny[i] = f32(chosen.x + chosen.y);",
        refused_by: &["glslang.glsl-430"],
        is_read_only: false,
    },
];

/// A struct of arguments without semantics, which naga writes for numbers of subgroups.
const WITHOUT_SEMANTICS: &str = "RWByteAddressBuffer y : register(u0);
struct Own { uint lane; uint place; };
[numthreads(64, 1, 1)]
void main(Own own) { y.Store(own.lane * 4u, own.place); }
";

/// A name that is not declared.
const WITHOUT_DECLARATION: &str = "RWByteAddressBuffer y : register(u0);
[numthreads(64, 1, 1)]
void main(uint3 id : SV_DispatchThreadID) { y.Store(id.x * 4u, missing); }
";

/// Values that an invocation of the planted kernel holds at once: more than any GPU has registers.
const HELD: usize = 320;

/// Writes the shaders, and for each judge the list of its shaders.
pub fn fill(folder: &Folder) -> io::Result<()> {
    let mut shaders = vec![good(), shader("bad-spill", &spilling_body())];
    for plant in PLANTS {
        let mut planted = shader(plant.name, plant.body);
        planted.buffers[1].read_only = plant.is_read_only;
        shaders.push(planted);
    }
    let asked = |judge: &str| {
        let refused = |plant: &&Plant| {
            plant.refused_by.iter().any(|by| judge == *by || judge.starts_with(&format!("{by}.")))
        };
        let names = PLANTS.iter().filter(refused).map(|plant| plant.name);
        std::iter::once(GOOD).chain(names).collect::<Vec<_>>()
    };
    folder.write_wgsl(&shaders)?;
    folder.write_list("tint", asked("tint"))?;
    let all: Vec<&Shader> = shaders.iter().collect();
    for (target, mut verdicts) in TARGETS.iter().zip(folder.translate(TARGETS, &all)?) {
        let names = asked(&format!("naga.{}", target.name()));
        verdicts.retain(|verdict| names.contains(&verdict.name.as_str()));
        folder.write_verdicts(*target, &verdicts)?;
        let Some(judge) = target.judge() else { continue };
        let file = |name: &str| format!("{}/{name}{}", target.name(), target.ending());
        let mut names = asked(&judge);
        if target.ending() == ".spv" {
            folder
                .write(&file("bad-store"), corrupted(&std::fs::read(folder.file(&file(GOOD)))?)?)?;
            names.push("bad-store");
        } else {
            let source = std::fs::read_to_string(folder.file(&file(GOOD)))?;
            folder.write(&file("bad-declaration"), source.replace("return;", "missing = 1;"))?;
            names.push("bad-declaration");
        }
        folder.write_list(&judge, names)?;
    }
    folder.write_list("mesa", [GOOD, "bad-spill"])?;
    write_hlsl(folder, "fxc", Hlsl::V5_1)?;
    write_hlsl(folder, "dxc", Hlsl::V6_0)
}

fn write_hlsl(folder: &Folder, judge: &str, model: Hlsl) -> io::Result<()> {
    let mut jobs = vec![Job::of(model, GOOD)];
    for (name, source) in [("bad-semantics", WITHOUT_SEMANTICS), ("bad-name", WITHOUT_DECLARATION)]
    {
        let job = Job::of(model, name);
        folder.write(&job.file, source)?;
        jobs.push(job);
    }
    folder.write_jobs(judge, &jobs)
}

/// The module with a store of a pointer instead of a value.
fn corrupted(module: &[u8]) -> io::Result<Vec<u8>> {
    /// Words before the first instruction.
    const HEADER: usize = 5;
    const OP_STORE: u32 = 62;
    let word = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let mut words: Vec<u32> = module.chunks_exact(4).map(word).collect();
    let mut at = HEADER;
    while at < words.len() && words[at] & 0xffff != OP_STORE {
        at += (words[at] >> 16).max(1) as usize;
    }
    if at + 2 >= words.len() {
        return Err(io::Error::other("the planted module stores nothing"));
    }
    words[at + 2] = words[at + 1];
    Ok(words.into_iter().flat_map(u32::to_le_bytes).collect())
}

/// Every value of a step depends on two of the step before, and the number of steps is not known.
fn spilling_body() -> String {
    let mut body = String::new();
    for value in 0..HELD {
        body.push_str(&format!("var v{value} = x[i + {value}u * params.stride];\n"));
    }
    body.push_str("for (var step = 0u; step < params.length; step++) {\n");
    for value in 0..HELD {
        let other = (value * 7 + 3) % HELD;
        body.push_str(&format!("v{value} = fma(v{value}, v{other}, params.scale);\n"));
    }
    body.push_str("}\n");
    for value in 0..HELD {
        body.push_str(&format!("y[i + {value}u * params.stride] = v{value};\n"));
    }
    body
}

/// The shader that every judge takes.
pub fn good() -> Shader {
    let body = "shared_values[i % 64u] = x[i];\nworkgroupBarrier();\n\
        y[i] = shared_values[0] * params.scale;";
    shader(GOOD, body)
}

fn shader(name: &str, body: &str) -> Shader {
    let buffer = |name: &str, read_only| Buffer { name: name.to_owned(), read_only, bytes: 4 };
    let entry = "@compute @workgroup_size(64)\n\
        fn main(@builtin(global_invocation_id) id: vec3<u32>) {\nlet i = id.x;";
    let source = format!("{HEAD}\n{entry}\n{body}\n}}\n");
    Shader {
        name: name.to_owned(),
        kernel: name.to_owned(),
        variant: "planted".to_owned(),
        form: String::new(),
        storage: None,
        subgroups: false,
        params_bytes: 16,
        buffers: vec![buffer("x", true), buffer("y", false)],
        lengths_bytes: 0,
        source_for_glsl_430: source.clone(),
        source,
    }
}
