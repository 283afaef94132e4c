//! Names for what is deep within an expression, so that the text can be read again: naga's reader
//! goes 256 levels deep, a few of them for each operation.

use naga::{Expression, Function, Handle};

/// Operations within one text at most.
const DEPTH: usize = 24;

/// Names values so that no expression is deeper than [`DEPTH`] between two names.
pub fn name_deep(module: &mut naga::Module) {
    for entry in &mut module.entry_points {
        name(&mut entry.function);
    }
    for (_, function) in module.functions.iter_mut() {
        name(function);
    }
}

fn name(function: &mut Function) {
    let mut depths = vec![0; function.expressions.len()];
    for (handle, expression) in function.expressions.iter() {
        let depth = 1 + operands(expression)
            .into_iter()
            .map(|operand| depths[operand.index()])
            .max()
            .unwrap_or(0);
        let is_value = matches!(
            expression,
            Expression::Binary { .. }
                | Expression::Unary { .. }
                | Expression::Math { .. }
                | Expression::Select { .. }
                | Expression::As { .. }
        );
        if is_value && depth >= DEPTH {
            let name = format!("deep_{}", handle.index());
            function.named_expressions.entry(handle).or_insert(name);
        } else {
            depths[handle.index()] = depth;
        }
    }
}

fn operands(expression: &Expression) -> Vec<Handle<Expression>> {
    match *expression {
        Expression::Binary { left, right, .. } => vec![left, right],
        Expression::Unary { expr, .. } | Expression::As { expr, .. } => vec![expr],
        Expression::Math { arg, arg1, arg2, arg3, .. } => {
            [Some(arg), arg1, arg2, arg3].into_iter().flatten().collect()
        }
        Expression::Select { condition, accept, reject } => vec![condition, accept, reject],
        Expression::Splat { value, .. } => vec![value],
        Expression::Compose { ref components, .. } => components.clone(),
        Expression::Relational { argument, .. } => vec![argument],
        Expression::Access { base, index } => vec![base, index],
        Expression::AccessIndex { base, .. } => vec![base],
        Expression::Swizzle { vector, .. } => vec![vector],
        Expression::Load { pointer } => vec![pointer],
        _ => Vec::new(),
    }
}
