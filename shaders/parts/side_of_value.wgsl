// On which side of the activation a value was: v is formed again, as forward formed it.

fn begin_sides(walk: Walk, lane: u32) {}

fn is_above(x_at: u32, step: u32, line: Line) -> bool {
    return value_at(x_at, line) > 0.0;
}
