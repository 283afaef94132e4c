// Sum over the rows of a tile (or of a channel's tiles), in one fixed order: sixteen by sixteen,
// then the rest.
//
// Two barriers a sum and no barrier in a loop. Rows are a power of two up to 256; one sum per
// column runs side by side. Few roundings meet one large term, as where one value of a channel
// outweighs all others: at most five a level.

// The rows' terms, then, from BLOCK_SUMS on, the sums of sixteen.
var<workgroup> sums: array<vec4<f32>, 512>;

const BLOCK_SUMS: u32 = 256u;

// The sum of `count` entries, a power of two up to sixteen, from `first` on and `stride` apart: by
// fours, pairwise.
fn sum_of_entries(first: u32, count: u32, stride: u32) -> vec4<f32> {
    var total = vec4<f32>(0.0);
    for (var i = 0u; i < count; i += 4u) {
        let at = first + i * stride;
        var pair = sums[at];
        if (count > 1u) {
            pair += sums[at + stride];
        }
        if (count > 2u) {
            pair += sums[at + 2u * stride] + sums[at + 3u * stride];
        }
        total += pair;
    }
    return total;
}

// Every invocation of a column gets the column's sum.
fn sum_over_rows(value: vec4<f32>, row: u32, column: u32, rows: u32, columns_log2: u32) -> vec4<f32> {
    let stride = 1u << columns_log2;
    let block_rows = min(rows, 16u);
    let blocks = rows / block_rows;
    sums[row * stride + column] = value;
    workgroupBarrier();
    if (row < blocks) {
        sums[BLOCK_SUMS + row * stride + column] = sum_of_entries(row * block_rows * stride + column, block_rows, stride);
    }
    workgroupBarrier();
    return sum_of_entries(BLOCK_SUMS + column, blocks, stride);
}
