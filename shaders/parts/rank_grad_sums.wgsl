// Gradient sums of ranks added up, about the mean that forward has found.

#import settled
#import rank_weights

struct RankGradSums {
    dy: f32,          // Σg
    dy_xmu: f32,      // Σ g·(x − mean)
    dy_not_finite: bool,
    xmu_not_finite: bool,
}

// Adds a rank's sums; a rank without values adds nothing, whatever the others made of the channel.
fn add_rank(
    total: ptr<function, RankGradSums>,
    rank: u32,
    channel: u32,
    rest: f32,
    center_not_finite: bool,
) {
    if (weight_of(rank).count == 0.0) {
        return;
    }
    let sums = sums_of(rank, channel);
    let not_finite = sums.z != 0.0;
    (*total).dy += sums.x;
    (*total).dy_xmu += difference_f32(sums.y, settled_f32(rest * sums.x));
    (*total).dy_not_finite |= not_finite;
    (*total).xmu_not_finite |= not_finite || sums.w != 0.0 || center_not_finite;
}
