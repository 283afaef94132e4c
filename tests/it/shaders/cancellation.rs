//! No difference of floats without a barrier: a compiler with fast math would regroup it with what
//! is around it, and what cancels is lost.
//!
//! Every subtraction of floats, and every addition of what is negated or multiplied by a negative
//! number, also by `fma`, lies in a function whose name starts with `difference` and which returns
//! it through an integer: bitcast, exclusive or (or and) with a number that no compiler knows,
//! bitcast. What it subtracts is no arithmetic that has not passed the same way, because x − (a +
//! b) may be regrouped as well: `values` follows it through arguments, results and local variables.
//! Exempt is what a list names with a reason.

use std::collections::{HashMap, HashSet};

use naga::valid::FunctionInfo;
use naga::{
    BinaryOperator, Block, Expression, Function, Handle, LocalVariable, MathFunction, ScalarKind,
    Statement,
};

use super::check::Shader;
use values::{Held, Known, Values};

#[path = "cancellation/values.rs"]
mod values;

/// A subtraction that may stay: the function it lies in, a part of its line, and why nothing is
/// lost.
pub struct Exempt {
    pub function: &'static str,
    pub line: &'static str,
    #[allow(dead_code)]
    pub reason: &'static str,
}

/// Every difference that a compiler may take apart, and the exemptions that were used.
pub fn cancellations(shader: &Shader, exempt: &[Exempt]) -> (Vec<String>, HashSet<usize>) {
    let mut found = Vec::new();
    let mut used = HashSet::new();
    let mut known = Known {
        shader,
        barriers: HashSet::new(),
        sinks: HashMap::new(),
        loaded: HashMap::new(),
        returned: HashMap::new(),
    };
    let functions = shader.module.functions.iter();
    let helpers =
        functions.map(|(handle, function)| (Some(handle), function, &shader.info[handle]));
    let entries = shader.module.entry_points.iter().enumerate();
    let entries =
        entries.map(|(index, entry)| (None, &entry.function, shader.info.get_entry_point(index)));
    // A function comes after those it calls.
    for (handle, function, info) in helpers.chain(entries) {
        let mut walk = Walk::new(&known, function, info);
        walk.block(&function.body);
        let differences = walk.differences();
        let is_difference = walk.is_difference(&differences);
        if is_difference {
            walk.sinks.insert((1, Vec::new()));
        }
        for &difference in differences.iter().filter(|_| !is_difference) {
            match exempt
                .iter()
                .position(|e| e.function == walk.name() && walk.line(difference).contains(e.line))
            {
                Some(index) => drop(used.insert(index)),
                None => walk
                    .found
                    .push(format!("{}: a difference without a barrier", walk.place(difference))),
            }
        }
        let is_barrier = is_difference || walk.is_barrier();
        let Walk { sinks, loaded, returned, found: here, .. } = walk;
        found.extend(here);
        if let Some(handle) = handle {
            known.sinks.insert(handle, sinks);
            known.loaded.insert(handle, loaded);
            known.returned.insert(handle, returned);
            known.barriers.extend(is_barrier.then_some(handle));
        }
    }
    (found, used)
}

/// The walk over one function.
struct Walk<'a, 'k> {
    known: &'k Known<'a>,
    function: &'a Function,
    info: &'a FunctionInfo,
    /// What local variables may hold at this point.
    held: HashMap<Handle<LocalVariable>, Held>,
    loaded: HashMap<Handle<Expression>, Held>,
    returned: Vec<Handle<Expression>>,
    sinks: HashSet<(u32, Vec<u32>)>,
    found: Vec<String>,
}

impl<'a, 'k> Walk<'a, 'k> {
    fn new(known: &'k Known<'a>, function: &'a Function, info: &'a FunctionInfo) -> Self {
        let held = HashMap::new();
        let loaded = HashMap::new();
        let returned = Vec::new();
        Self {
            known,
            function,
            info,
            held,
            loaded,
            returned,
            sinks: HashSet::new(),
            found: Vec::new(),
        }
    }

    fn values(&self) -> Values<'a, '_> {
        Values { known: self.known, function: self.function, info: self.info, loaded: &self.loaded }
    }

    fn name(&self) -> &str {
        self.function.name.as_deref().unwrap_or("main")
    }

    fn line(&self, of: Handle<Expression>) -> &str {
        let source = &self.known.shader.source;
        let number = self.function.expressions.get_span(of).location(source).line_number;
        source.lines().nth(number as usize - 1).unwrap_or_default()
    }

    fn place(&self, of: Handle<Expression>) -> String {
        format!("`{}`: {}", self.name(), self.line(of).trim())
    }

    fn differences(&self) -> Vec<Handle<Expression>> {
        let expressions = &self.function.expressions;
        let values = self.values();
        let is_difference =
            |&(handle, expression): &(Handle<Expression>, &Expression)| match *expression {
                Expression::Binary { op: BinaryOperator::Subtract, .. } => values.is_float(handle),
                Expression::Binary { op: BinaryOperator::Add, left, right } => {
                    values.is_float(handle)
                        && [left, right].iter().any(|&term| values.is_negation(term))
                }
                Expression::Math { fun: MathFunction::Fma, arg, arg1, arg2, .. } => {
                    [Some(arg), arg1, arg2]
                        .into_iter()
                        .flatten()
                        .any(|term| values.is_negation(term))
                }
                _ => false,
            };
        expressions.iter().filter(is_difference).map(|(handle, _)| handle).collect()
    }

    /// Whether it returns the difference of its two arguments through a barrier.
    fn is_difference(&self, differences: &[Handle<Expression>]) -> bool {
        let expressions = &self.function.expressions;
        let &[difference] = differences else { return false };
        let Expression::Binary { op: BinaryOperator::Subtract, left, right } =
            expressions[difference]
        else {
            return false;
        };
        let is_argument =
            |of: Handle<Expression>, index| expressions[of] == Expression::FunctionArgument(index);
        let is_settled = |&returned: &Handle<Expression>| {
            self.function.body.iter().any(|statement| match statement {
                Statement::Call { function, arguments, result } => {
                    self.known.barriers.contains(function)
                        && arguments.first() == Some(&difference)
                        && *result == Some(returned)
                }
                _ => false,
            })
        };
        self.name().starts_with("difference")
            && is_argument(left, 0)
            && is_argument(right, 1)
            && !self.returned.is_empty()
            && self.returned.iter().all(is_settled)
    }

    /// Whether it returns bitcast(bitcast(v) ^ z) with a z that is not constant, or & instead of ^.
    fn is_barrier(&self) -> bool {
        let &[returned] = &self.returned[..] else { return false };
        let of = |handle: Handle<Expression>| &self.function.expressions[handle];
        let is_bits = |handle| match *of(handle) {
            Expression::As { expr, kind: ScalarKind::Uint, convert: None } => {
                *of(expr) == Expression::FunctionArgument(0)
            }
            _ => false,
        };
        let Expression::As { expr, kind: ScalarKind::Float, convert: None } = *of(returned) else {
            return false;
        };
        let Expression::Binary {
            op: BinaryOperator::ExclusiveOr | BinaryOperator::And,
            left,
            right,
        } = *of(expr)
        else {
            return false;
        };
        let is_known = |handle| self.values().is_constant(handle) || self.is_chosen(handle);
        (is_bits(left) && !is_known(right)) || (is_bits(right) && !is_known(left))
    }

    /// Whether it is one of some constants: by `select`, or by a call whose numbers are constants.
    fn is_chosen(&self, of: Handle<Expression>) -> bool {
        let is_constant = |part: &Handle<Expression>| self.values().is_constant(*part);
        match self.function.expressions[of] {
            Expression::Splat { value, .. } => self.is_chosen(value),
            Expression::Select { accept, reject, .. } => [accept, reject].iter().all(is_constant),
            Expression::CallResult(_) => self.function.body.iter().any(|statement| {
                let Statement::Call { arguments, result, .. } = statement else { return false };
                let mut numbers = arguments.iter().filter(|&&part| !self.values().is_bool(part));
                *result == Some(of) && arguments.len() > 1 && numbers.all(is_constant)
            }),
            _ => false,
        }
    }

    /// Follows what variables hold, and looks at what calls subtract.
    fn block(&mut self, block: &Block) {
        for statement in block {
            match statement {
                Statement::Emit(range) => {
                    for handle in range.clone() {
                        if let Expression::Load { pointer } = self.function.expressions[handle]
                            && let Some((local, _)) = self.values().local(pointer)
                        {
                            let held = self.held.get(&local).cloned().unwrap_or_default();
                            self.loaded.entry(handle).or_default().extend(held);
                        }
                    }
                }
                &Statement::Store { pointer, value } => {
                    if let Some((local, path)) = self.values().local(pointer) {
                        let is_all = !matches!(
                            self.function.expressions[pointer],
                            Expression::Access { .. }
                        );
                        let held = self.held.entry(local).or_default();
                        held.retain(|(at, _)| !(is_all && at.starts_with(&path)));
                        held.push((path, value));
                    }
                }
                Statement::Call { function, arguments, .. } => {
                    for (index, path) in &self.known.sinks[function] {
                        let subtracted = arguments[*index as usize];
                        self.sinks.extend(self.values().arguments(subtracted, path));
                        if self.values().is_arithmetic(subtracted, path) {
                            let what = format!(
                                "{}: what is subtracted is not settled",
                                self.place(subtracted)
                            );
                            self.found.push(what);
                        }
                    }
                }
                Statement::Return { value } => self.returned.extend(value),
                Statement::Block(inner) => self.block(inner),
                Statement::If { accept, reject, .. } => self.either(&[accept, reject]),
                Statement::Switch { cases, .. } => {
                    self.either(&cases.iter().map(|case| &case.body).collect::<Vec<_>>());
                }
                Statement::Loop { body, continuing, .. } => {
                    // What the first turn leaves is what the second finds.
                    let found = self.found.len();
                    self.either(&[body, continuing]);
                    self.found.truncate(found);
                    self.block(body);
                    self.block(continuing);
                }
                _ => {}
            }
        }
    }

    fn either(&mut self, blocks: &[&Block]) {
        let before = self.held.clone();
        let mut after = before.clone();
        for block in blocks {
            self.held = before.clone();
            self.block(block);
            for (&local, held) in &self.held {
                let all = after.entry(local).or_default();
                all.extend(
                    held.iter().filter(|one| !all.contains(one)).cloned().collect::<Vec<_>>(),
                );
            }
        }
        self.held = after;
    }
}
