// Activations that are no two straight lines: the function that params.curve says, the same for all
// invocations. The numbers are those of `Activation::form`.

#import params
#import curve_relu6
#import curve_silu
#import curve_hardswish
#import curve_gelu
#import curve_gelu_tanh
#import curve_elu

const RELU6: u32 = 1u;
const SILU: u32 = 2u;
const HARDSWISH: u32 = 3u;
const GELU: u32 = 4u;
const GELU_TANH: u32 = 5u;
const ELU: u32 = 6u;

fn curve_value(v: V) -> V {
    var y = v;
    if (params.curve == RELU6) {
        y = relu6_value(v);
    } else if (params.curve == SILU) {
        y = silu_value(v);
    } else if (params.curve == HARDSWISH) {
        y = hardswish_value(v);
    } else if (params.curve == GELU) {
        y = gelu_value(v);
    } else if (params.curve == GELU_TANH) {
        y = gelu_tanh_value(v);
    } else if (params.curve == ELU) {
        y = elu_value(v);
    }
    return settled(y);
}

fn curve_derivative(v: V) -> V {
    var slope = V(1.0);
    if (params.curve == RELU6) {
        slope = relu6_derivative(v);
    } else if (params.curve == SILU) {
        slope = silu_derivative(v);
    } else if (params.curve == HARDSWISH) {
        slope = hardswish_derivative(v);
    } else if (params.curve == GELU) {
        slope = gelu_derivative(v);
    } else if (params.curve == GELU_TANH) {
        slope = gelu_tanh_derivative(v);
    } else if (params.curve == ELU) {
        slope = elu_derivative(v);
    }
    return settled(slope);
}
