//! What blocks may do: which variables they write, and whether they return.

use std::collections::HashSet;

use naga::{Expression, Handle, LocalVariable, Statement};

use super::straighten::{Frame, Straighten};

impl<'a> Straighten<'a> {
    /// The local variables that a block may write.
    pub(super) fn stored(
        &self,
        frame: &Frame<'a>,
        block: &[Statement],
        found: &mut HashSet<Handle<LocalVariable>>,
    ) {
        for statement in block {
            match statement {
                Statement::Store { pointer, .. } => found.extend(self.root(frame, *pointer)),
                Statement::Call { arguments, .. } => {
                    found.extend(
                        arguments.iter().filter_map(|&argument| self.root(frame, argument)),
                    );
                }
                Statement::Block(inner) => self.stored(frame, inner, found),
                Statement::If { accept, reject, .. } => {
                    self.stored(frame, accept, found);
                    self.stored(frame, reject, found);
                }
                Statement::Switch { cases, .. } => {
                    cases.iter().for_each(|case| self.stored(frame, &case.body, found))
                }
                Statement::Loop { body, continuing, .. } => {
                    self.stored(frame, body, found);
                    self.stored(frame, continuing, found);
                }
                _ => {}
            }
        }
    }

    pub(super) fn root(
        &self,
        frame: &Frame<'a>,
        pointer: Handle<Expression>,
    ) -> Option<Handle<LocalVariable>> {
        match frame.function.expressions[pointer] {
            Expression::LocalVariable(local) => Some(frame.locals[&local]),
            Expression::FunctionArgument(index) => {
                let argument = *frame.call.as_ref()?.arguments.get(index as usize)?;
                self.target(argument).map(|target| target.0)
            }
            Expression::AccessIndex { base, .. } | Expression::Access { base, .. } => {
                self.root(frame, base)
            }
            _ => None,
        }
    }
}

/// Whether a block returns outside of loops and switches.
pub fn returns(block: &[Statement]) -> bool {
    block.iter().any(|statement| match statement {
        Statement::Return { .. } => true,
        Statement::Block(inner) => returns(inner),
        Statement::If { accept, reject, .. } => returns(accept) || returns(reject),
        _ => false,
    })
}

/// Whether a block returns from within a loop or a switch, so that it is not inlined.
pub fn returns_within(block: &[Statement]) -> bool {
    let any = |block: &[Statement]| returns(block) || returns_within(block);
    block.iter().any(|statement| match statement {
        Statement::Block(inner) => returns_within(inner),
        Statement::If { accept, reject, .. } => returns_within(accept) || returns_within(reject),
        Statement::Switch { cases, .. } => cases.iter().any(|case| any(&case.body)),
        Statement::Loop { body, continuing, .. } => any(body) || any(continuing),
        _ => false,
    })
}
