// Merging over the rows of a tile: sixteen by sixteen, then the rest. Four sums of a kind lie side by side.
//
// Two barriers and no barrier in a loop. Rows are a power of two up to 256.

var<workgroup> entries: array<array<vec4<f32>, SUMS>, 256>;

// Merges what all rows of a column hold; the result is that of row 0.
fn merge_over_rows(own: array<vec4<f32>, SUMS>, walk: Walk) -> array<vec4<f32>, SUMS> {
    let stride = 1u << params.columns_log2;
    let group_rows = min(params.rows, 16u);
    let groups = params.rows / group_rows;
    entries[walk.row * stride + walk.column] = own;
    workgroupBarrier();
    if (walk.row < groups) {
        // Over the first of the entries that are merged, which no other row reads.
        let first = walk.row * group_rows;
        entries[first * stride + walk.column] = merged(first, 1u, group_rows, walk);
    }
    workgroupBarrier();
    return merged(0u, group_rows, groups, walk);
}
