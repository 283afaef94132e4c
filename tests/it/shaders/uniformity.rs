//! No barrier in non-uniform control flow: a walk over naga's statements, because naga itself
//! accepts such barriers.
//!
//! Control flow is taken to be uniform only where every condition on the way, and every condition
//! of an earlier exit, is made of constants, the uniform buffer, read-only storage, `workgroup_id`
//! and `num_workgroups`. That is stricter than WGSL: what passes through a local variable, a
//! function's argument or result counts as non-uniform, and so does `a && b`, which naga turns into
//! a local variable. A barrier in a loop is refused whatever the loop's condition is.
//!
//! naga's own uniformity must agree, but is not enough: it takes workgroup memory for uniform,
//! forgets the condition under which a function returns one constant or another, and does not look
//! at barriers at all.

use std::collections::HashSet;

use naga::valid::FunctionInfo;
use naga::{
    AddressSpace, Binding, Block, BuiltIn, Expression, Function, Handle, Statement, StorageAccess,
};

use super::check::Shader;

/// Every barrier, and every call of a function with a barrier, that not all invocations may reach
/// together.
pub fn misplaced_barriers(shader: &Shader) -> Vec<String> {
    let mut with_barrier = HashSet::new();
    let mut found = Vec::new();
    // A function comes after those it calls.
    for (handle, function) in shader.module.functions.iter() {
        let walk = Walk {
            shader,
            function,
            info: &shader.info[handle],
            is_entry: false,
            with_barrier: &with_barrier,
        };
        let has_barrier = walk.function_body(&mut found);
        if has_barrier {
            with_barrier.insert(handle);
        }
    }
    for (i, entry) in shader.module.entry_points.iter().enumerate() {
        let function = &entry.function;
        let info = shader.info.get_entry_point(i);
        Walk { shader, function, info, is_entry: true, with_barrier: &with_barrier }
            .function_body(&mut found);
    }
    found
}

struct Walk<'a> {
    shader: &'a Shader,
    function: &'a Function,
    info: &'a FunctionInfo,
    is_entry: bool,
    with_barrier: &'a HashSet<Handle<Function>>,
}

/// Why the invocations of a workgroup may have parted at some point; none where they are together.
type Parted = Option<&'static str>;

/// What a block may do to the statements after it.
#[derive(Default)]
struct Exits {
    /// Some invocations may have left the function.
    returned: Parted,
    /// Some invocations may have left the enclosing switch or loop.
    broke: Parted,
    has_barrier: bool,
}

impl Exits {
    fn add(&mut self, other: Exits) {
        self.returned = self.returned.or(other.returned);
        self.broke = self.broke.or(other.broke);
        self.has_barrier |= other.has_barrier;
    }
}

impl Walk<'_> {
    fn function_body(&self, found: &mut Vec<String>) -> bool {
        self.block(&self.function.body, None, found).has_barrier
    }

    fn block(&self, block: &Block, parted: Parted, found: &mut Vec<String>) -> Exits {
        let mut exits = Exits::default();
        for (statement, span) in block.span_iter() {
            let here = parted.or(exits.returned).or(exits.broke);
            let after = self.statement(statement, here, found);
            if self.is_barrier(statement) {
                exits.has_barrier = true;
                if let Some(why) = here {
                    let line = span.location(&self.shader.source).line_number;
                    let name = self.function.name.as_deref().unwrap_or("main");
                    found.push(format!("line {line}, in `{name}`: a barrier {why}"));
                }
            }
            exits.add(after);
        }
        exits
    }

    fn statement(&self, statement: &Statement, here: Parted, found: &mut Vec<String>) -> Exits {
        let mut exits = Exits::default();
        match statement {
            Statement::Block(block) => exits = self.block(block, here, found),
            Statement::If { condition, accept, reject } => {
                let inside = here.or(self.parts(*condition, "under a non-uniform if"));
                exits = self.block(accept, inside, found);
                exits.add(self.block(reject, inside, found));
            }
            Statement::Switch { selector, cases } => {
                let inside = here.or(self.parts(*selector, "under a non-uniform switch"));
                // A case that falls through hands on those that did not break; one that does not is
                // over.
                let mut fallen = None;
                for case in cases {
                    let one = self.block(&case.body, inside.or(fallen), found);
                    fallen = if case.fall_through { one.broke.or(one.returned) } else { None };
                    exits.add(one);
                }
                // The invocations that broke wait behind the switch.
                exits.broke = None;
            }
            Statement::Loop { body, continuing, .. } => {
                let inside = here.or(Some("in a loop"));
                exits = self.block(body, inside, found);
                exits.add(self.block(continuing, inside, found));
                exits.broke = None;
                exits.returned = exits.returned.map(|_| "after a return from within a loop");
            }
            Statement::Return { .. } => {
                exits.returned = here.map(|_| "after a return that only some may take")
            }
            Statement::Break | Statement::Continue => {
                exits.broke = here.map(|_| "after a break or continue that only some may take");
            }
            _ => {}
        }
        exits
    }

    fn is_barrier(&self, statement: &Statement) -> bool {
        match statement {
            Statement::ControlBarrier(_)
            | Statement::MemoryBarrier(_)
            | Statement::WorkGroupUniformLoad { .. } => true,
            Statement::Call { function, .. } => self.with_barrier.contains(function),
            _ => false,
        }
    }

    fn parts(&self, condition: Handle<Expression>, why: &'static str) -> Parted {
        let naga_agrees = self.info[condition].uniformity.non_uniform_result.is_none();
        (!(naga_agrees && self.is_uniform(condition))).then_some(why)
    }

    /// Whether the value, or what the pointer leads to, is the same for all invocations of a
    /// workgroup.
    fn is_uniform(&self, expression: Handle<Expression>) -> bool {
        let all = |parts: &[Handle<Expression>]| parts.iter().all(|&part| self.is_uniform(part));
        match &self.function.expressions[expression] {
            Expression::Literal(_)
            | Expression::Constant(_)
            | Expression::Override(_)
            | Expression::ZeroValue(_) => true,
            Expression::Compose { components, .. } => all(components),
            Expression::Access { base, index } => all(&[*base, *index]),
            Expression::AccessIndex { base, .. } => all(&[*base]),
            Expression::Splat { value, .. } => all(&[*value]),
            Expression::Swizzle { vector, .. } => all(&[*vector]),
            Expression::Unary { expr, .. } | Expression::As { expr, .. } => all(&[*expr]),
            Expression::Binary { left, right, .. } => all(&[*left, *right]),
            Expression::Select { condition, accept, reject } => {
                all(&[*condition, *accept, *reject])
            }
            Expression::Relational { argument, .. } => all(&[*argument]),
            Expression::Math { arg, arg1, arg2, arg3, .. } => {
                all(&[*arg])
                    && [arg1, arg2, arg3].into_iter().flatten().all(|&arg| self.is_uniform(arg))
            }
            Expression::Load { pointer } => all(&[*pointer]),
            Expression::WorkGroupUniformLoadResult { .. } => true,
            Expression::GlobalVariable(global) => {
                match self.shader.module.global_variables[*global].space {
                    AddressSpace::Uniform => true,
                    AddressSpace::Storage { access } => !access.contains(StorageAccess::STORE),
                    _ => false,
                }
            }
            Expression::FunctionArgument(index) => {
                let builtin = &self.function.arguments[*index as usize].binding;
                let is_per_workgroup = matches!(
                    builtin,
                    Some(Binding::BuiltIn(BuiltIn::WorkGroupId | BuiltIn::NumWorkGroups))
                );
                self.is_entry && is_per_workgroup
            }
            _ => false,
        }
    }
}
