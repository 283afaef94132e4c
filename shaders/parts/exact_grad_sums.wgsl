// Gradient sums of a channel from the sums of integers of ranks, as f64.

#import rank_integers
#import grid
#import packed

struct GradSums {
    dy: Double,           // Σg
    dy_xmu: Double,       // Σ g·(x − mean)
    dy_not_finite: bool,
    xmu_not_finite: bool,
}

// Over ranks of `count` values.
fn grad_sums_of(first: u32, end: u32, channel: u32, count: u32) -> GradSums {
    var sums = GradSums(ZERO_DOUBLE, ZERO_DOUBLE, false, false);
    if (count == 0u) {
        return sums;
    }
    let statistics = grids[params.channels + channel];
    sums.dy_not_finite = grad_grids[2u * params.channels + channel].x != 0u;
    sums.xmu_not_finite = sums.dy_not_finite || !is_finite(statistics.x);
    let of_x = grad_grids[2u * channel];
    let of_g = grad_grids[2u * channel + 1u];
    if (sums.dy_not_finite || !has_grid(of_g)) {
        return sums;
    }
    let f = exponent_of(of_g);
    let integers = sums_of(first, end, INTEGERS, channel, count);
    sums.dy = double_of_integer(integers.t, f);
    if (sums.xmu_not_finite) {
        return sums;
    }
    if (has_grid(of_x)) {
        sums.dy_xmu = double_of_integer(integers.product, exponent_of(of_x) + f);
    }
    let from_mean = double_difference(double_of_f32(statistics.x), unpacked(statistics.yzw));
    sums.dy_xmu = double_sum(sums.dy_xmu, double_product(from_mean, sums.dy));
    return sums;
}
