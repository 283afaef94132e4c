// Running statistics as they lie on the device.

// The counter lies with every channel, so that every invocation reads and writes what is its own.
struct Running {
    mean: u32,            // bits of a f32
    variance: u32,        // bits of a f32
    batches_low: u32,     // batches counted, in two words
    batches_high: u32,
}
