// The gradient of the residual, 16-bit storage.

@group(0) @binding(8) var<storage, read_write> grad_residual: array<u32>;   // (N, C, L) in the layout of x, two to a word

fn keep_residual_word(word: u32, halves: u32, is_whole: bool) {
    if (is_whole) {
        grad_residual[word] = halves;
    } else {
        grad_residual[word] = halves | (grad_residual[word] & 0xffff0000u);
    }
}
