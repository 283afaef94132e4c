// Sum over the rows of a tile (or of a channel's tiles), in one fixed order: sixteen by sixteen, then the rest.
//
// Two barriers a sum and no barrier in a loop. Rows are a power of two up to 256; `columns` sums run side by side.

var<workgroup> row_sums: array<vec4<f32>, 256>;
var<workgroup> block_sums: array<vec4<f32>, 256>;

// Every invocation of a column gets the column's sum.
fn sum_over_rows(value: vec4<f32>, row: u32, column: u32, rows: u32, columns_log2: u32) -> vec4<f32> {
    let block_rows = min(rows, 16u);
    let blocks = rows / block_rows;
    row_sums[(row << columns_log2) + column] = value;
    workgroupBarrier();
    if (row < blocks) {
        var sum = vec4<f32>(0.0);
        for (var i = 0u; i < block_rows; i++) {
            sum += row_sums[((row * block_rows + i) << columns_log2) + column];
        }
        block_sums[(row << columns_log2) + column] = sum;
    }
    workgroupBarrier();
    var total = vec4<f32>(0.0);
    for (var i = 0u; i < blocks; i++) {
        total += block_sums[(i << columns_log2) + column];
    }
    return total;
}
