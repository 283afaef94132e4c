//! The table "may not touch" of the architecture, as data.

/// Which other top-level modules a module may name.
pub enum Reach {
    Only(&'static [&'static str]),
    AllBut(&'static [&'static str]),
    /// All below the layers but these.
    Below(&'static [&'static str]),
}

pub struct Rule {
    pub module: &'static str,
    pub reach: Reach,
    /// Identifiers that may not appear in the module's code at all.
    pub names: &'static [&'static str],
}

/// The layers and what they stand on.
pub const LAYERS: &[&str] =
    &["joint", "layer", "on_device", "base", "request", "saved", "workspace"];

/// Plain types and their checks: every module may use them, they use nobody else.
const PLAIN: &[&str] =
    &["config", "shape", "dtype", "epilogue", "error", "fast_paths", "checksum", "timer", "trace"];

const fn rule(module: &'static str, reach: Reach, names: &'static [&'static str]) -> Rule {
    Rule { module, reach, names }
}

use Reach::{AllBut, Below, Only};

/// The table "may not touch" of the architecture. Arrows point down: what a line forbids lies above
/// or beside it.
pub const RULES: &[Rule] = &[
    // Message bytes, shader source and plans are far below.
    rule(
        "joint",
        Only(&["layer", "request", "saved", "collective", "stats", "tensor", "config", "error"]),
        &["Centering", "to_le_bytes", "from_le_bytes"],
    ),
    rule(
        "layer",
        AllBut(&["joint", "on_device", "workspace", "host", "plan", "shaders"]),
        &["wgpu", "include_str", "to_le_bytes", "from_le_bytes"],
    ),
    rule(
        "on_device",
        AllBut(&["joint", "layer", "exchange", "collective", "host", "shaders"]),
        &["wgpu", "include_str", "to_le_bytes", "from_le_bytes"],
    ),
    rule(
        "base",
        AllBut(&[
            "joint",
            "layer",
            "on_device",
            "workspace",
            "exchange",
            "collective",
            "host",
            "plan",
            "shaders",
        ]),
        &["wgpu"],
    ),
    // An encoder of the application's passes through.
    rule("request", Only(&["saved", "workspace", "stats", "tensor"]), &["Moments", "Centering"]),
    rule(
        "saved",
        Only(&["base", "request", "config", "engine", "error", "gpu", "shape", "stats", "tensor"]),
        &["wgpu"],
    ),
    rule("workspace", Only(&["device", "error", "gpu"]), &["wgpu"]),
    rule(
        "state",
        Below(&["gpu", "engine", "host", "plan", "shaders", "exchange", "collective"]),
        &["wgpu"],
    ),
    rule(
        "exchange",
        Below(&["state", "engine", "host", "gpu", "plan", "shaders"]),
        // Whether this thread is unwinding it may ask.
        &["wgpu", "spawn", "JoinHandle", "sleep", "park", "block_on"],
    ),
    rule(
        "collective",
        Below(&["state", "exchange", "engine", "host", "gpu", "plan", "shaders", "stats"]),
        &["wgpu", "Moments", "GradientSums"],
    ),
    rule("engine", Below(&["state", "exchange", "collective"]), &[]),
    rule(
        "host",
        Below(&["state", "exchange", "collective", "engine", "gpu", "shaders"]),
        &["wgpu"],
    ),
    // It knows slots and bytes.
    rule(
        "gpu",
        Below(&["state", "exchange", "collective", "engine", "host", "stats", "config"]),
        &["channels", "num_features", "eps", "Moments"],
    ),
    rule(
        "plan",
        Below(&["state", "exchange", "collective", "engine", "host", "gpu", "tensor"]),
        &["wgpu", "include_str", "wgsl", "source"],
    ),
    rule("shaders", Only(PLAIN), &["wgpu"]),
    // It judges answers; who asks is `gpu`. What kernels read of a channel is laid out in `stats`.
    rule("probe", Only(&["fast_paths", "shaders", "stats"]), &["wgpu"]),
    rule("stats", Only(PLAIN), &["wgpu"]),
    rule(
        "tensor",
        Below(&["state", "exchange", "collective", "plan", "shaders", "stats"]),
        &["Moments", "GlobalStatistics"],
    ),
    // The handle of a GPU or of the host; what runs on it lies above.
    rule(
        "device",
        Below(&["state", "exchange", "collective", "engine", "plan", "shaders", "stats"]),
        &["Moments", "GlobalStatistics"],
    ),
    // Names of what lies elsewhere, for tests and tools.
    rule(
        "low_level",
        Only(&[
            "checksum",
            "collective",
            "config",
            "device",
            "epilogue",
            "error",
            "exchange",
            "fast_paths",
            "plan",
            "probe",
            "shaders",
            "shape",
            "state",
            "stats",
        ]),
        &["channels", "include_str"],
    ),
    // Documents only.
    rule("guide", Only(&[]), &["fn", "struct", "enum", "trait", "use"]),
    rule("config", Only(PLAIN), &["wgpu"]),
    rule("shape", Only(PLAIN), &["wgpu"]),
    rule("dtype", Only(PLAIN), &["wgpu"]),
    rule("epilogue", Only(PLAIN), &["wgpu"]),
    rule("fast_paths", Only(PLAIN), &["wgpu"]),
    rule("error", Only(PLAIN), &["wgpu"]),
    rule("checksum", Only(PLAIN), &["wgpu"]),
    rule("timer", Only(PLAIN), &["wgpu"]),
    // What it tells is text and numbers.
    rule("trace", Only(&[]), &["wgpu"]),
];
