//! A function under construction: expressions, those of them that are not emitted yet, and what is
//! known already.

use std::collections::HashMap;

use naga::{Arena, Block, Expression, Handle, LocalVariable, Range, Span, Statement};

/// The expressions and variables of a function that is being written.
#[derive(Default)]
pub struct Builder {
    pub expressions: Arena<Expression>,
    pub locals: Arena<LocalVariable>,
    pending: Vec<Handle<Expression>>,
    /// Expressions in scope by their form: what is written twice is one value.
    known: HashMap<String, Handle<Expression>>,
    scopes: Vec<Vec<String>>,
}

impl Builder {
    /// A pure expression, made once per scope.
    pub fn pure(&mut self, expression: Expression) -> Handle<Expression> {
        let key = format!("{expression:?}");
        if let Some(&handle) = self.known.get(&key) {
            return handle;
        }
        let is_everywhere = expression.needs_pre_emit();
        let handle = self.fresh(expression);
        self.known.insert(key.clone(), handle);
        if let Some(scope) = self.scopes.last_mut().filter(|_| !is_everywhere) {
            scope.push(key);
        }
        handle
    }

    /// An expression that may give another value each time, such as a load.
    pub fn fresh(&mut self, expression: Expression) -> Handle<Expression> {
        let is_everywhere = expression.needs_pre_emit();
        let handle = self.result(expression);
        if !is_everywhere {
            self.pending.push(handle);
        }
        handle
    }

    /// An expression whose value a statement gives.
    pub fn result(&mut self, expression: Expression) -> Handle<Expression> {
        self.expressions.append(expression, Span::UNDEFINED)
    }

    /// Emits what is pending.
    pub fn emit(&mut self, block: &mut Block) {
        let mut pending = std::mem::take(&mut self.pending).into_iter().peekable();
        while let Some(first) = pending.next() {
            let mut last = first;
            while let Some(next) = pending.next_if(|next| next.index() == last.index() + 1) {
                last = next;
            }
            block.push(Statement::Emit(Range::new_from_bounds(first, last)), Span::UNDEFINED);
        }
    }

    /// A statement, after what is pending.
    pub fn push(&mut self, statement: Statement, block: &mut Block) {
        self.emit(block);
        block.push(statement, Span::UNDEFINED);
    }

    /// What is made from now on is not known after the matching `leave`.
    pub fn enter(&mut self) {
        assert!(self.pending.is_empty(), "expressions of the outer scope are emitted there");
        self.scopes.push(Vec::new());
    }

    pub fn leave(&mut self) {
        assert!(self.pending.is_empty(), "expressions are emitted in their scope");
        for key in self.scopes.pop().expect("a scope") {
            self.known.remove(&key);
        }
    }
}

/// A statement without blocks, its operands replaced.
pub fn with_operands(
    statement: &Statement,
    value: &mut impl FnMut(Handle<Expression>) -> Handle<Expression>,
    result: &mut impl FnMut(Handle<Expression>) -> Handle<Expression>,
) -> Statement {
    match *statement {
        Statement::Break
        | Statement::Continue
        | Statement::ControlBarrier(_)
        | Statement::MemoryBarrier(_) => statement.clone(),
        Statement::Return { value: returned } => Statement::Return { value: returned.map(value) },
        Statement::Store { pointer, value: stored } => {
            let pointer = value(pointer);
            Statement::Store { pointer, value: value(stored) }
        }
        Statement::Call { function, ref arguments, result: returned } => {
            let arguments = arguments.iter().map(|&argument| value(argument)).collect();
            Statement::Call { function, arguments, result: returned.map(result) }
        }
        Statement::WorkGroupUniformLoad { pointer, result: loaded } => {
            Statement::WorkGroupUniformLoad { pointer: value(pointer), result: result(loaded) }
        }
        Statement::SubgroupBallot { result: voted, predicate } => {
            let predicate = predicate.map(value);
            Statement::SubgroupBallot { result: result(voted), predicate }
        }
        Statement::SubgroupGather { mut mode, argument, result: gathered } => {
            use naga::GatherMode as Mode;
            match &mut mode {
                Mode::BroadcastFirst | Mode::QuadSwap(_) => {}
                Mode::Broadcast(index)
                | Mode::Shuffle(index)
                | Mode::ShuffleDown(index)
                | Mode::ShuffleUp(index)
                | Mode::ShuffleXor(index)
                | Mode::QuadBroadcast(index) => *index = value(*index),
            }
            Statement::SubgroupGather { mode, argument: value(argument), result: result(gathered) }
        }
        Statement::SubgroupCollectiveOperation { op, collective_op, argument, result: reduced } => {
            let argument = value(argument);
            Statement::SubgroupCollectiveOperation {
                op,
                collective_op,
                argument,
                result: result(reduced),
            }
        }
        ref other => panic!("a statement that no kernel has: {other:?}"),
    }
}

/// An expression with its operands replaced.
pub fn with_parts(
    expression: &Expression,
    value: &mut impl FnMut(Handle<Expression>) -> Handle<Expression>,
) -> Expression {
    let mut expression = expression.clone();
    match &mut expression {
        Expression::Compose { components, .. } => {
            components.iter_mut().for_each(|component| *component = value(*component))
        }
        Expression::Access { base, index } => (*base, *index) = (value(*base), value(*index)),
        Expression::AccessIndex { base, .. } => *base = value(*base),
        Expression::Splat { value: part, .. }
        | Expression::Swizzle { vector: part, .. }
        | Expression::Load { pointer: part }
        | Expression::Unary { expr: part, .. }
        | Expression::As { expr: part, .. }
        | Expression::Relational { argument: part, .. }
        | Expression::ArrayLength(part) => *part = value(*part),
        Expression::Binary { left, right, .. } => (*left, *right) = (value(*left), value(*right)),
        Expression::Select { condition, accept, reject } => {
            (*condition, *accept, *reject) = (value(*condition), value(*accept), value(*reject));
        }
        Expression::Math { arg, arg1, arg2, arg3, .. } => {
            *arg = value(*arg);
            [arg1, arg2, arg3].into_iter().flatten().for_each(|part| *part = value(*part));
        }
        _ => {}
    }
    expression
}
