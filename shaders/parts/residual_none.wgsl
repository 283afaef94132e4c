// No gradient of a residual is wanted.

fn keep_residual(address: u32, g: f32) {}

fn keep_residual_word(word: u32, halves: u32, is_whole: bool) {}
