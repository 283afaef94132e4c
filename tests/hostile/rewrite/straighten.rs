//! What optimizers do first: functions are inlined, local variables become values where no branch
//! or loop decides on them, branches on constants are taken, and what is written twice is one
//! value.

use std::collections::{HashMap, HashSet};

use naga::{Block, Expression, Function, Handle, LocalVariable, Module, Span, Statement, Type};

use super::build::{Builder, with_operands};
use super::known::Known;
use super::reach::{returns, returns_within};

/// Straightens every function of a module.
pub fn straighten(module: &mut Module) {
    let of = module.clone();
    for (handle, function) in module.functions.iter_mut() {
        *function = Straighten::new(&of).function(&of.functions[handle]);
    }
    for (entry, old) in module.entry_points.iter_mut().zip(&of.entry_points) {
        entry.function = Straighten::new(&of).function(&old.function);
    }
}

/// A function that is being walked: the outermost one, or one that is inlined into it.
pub struct Frame<'a> {
    pub function: &'a Function,
    /// The new expressions of its own.
    pub values: HashMap<Handle<Expression>, Handle<Expression>>,
    pub locals: HashMap<Handle<LocalVariable>, Handle<LocalVariable>>,
    /// Where it is inlined.
    pub call: Option<Call>,
}

/// A call that is inlined.
pub struct Call {
    pub arguments: Vec<Handle<Expression>>,
    /// The variable that takes the result.
    pub result: Option<Handle<LocalVariable>>,
}

pub struct Straighten<'a> {
    pub module: &'a Module,
    pub out: Builder,
    pub known: HashMap<Handle<LocalVariable>, Known>,
}

/// Statements that follow a block: those of the blocks around it.
type Rest<'a, 'b> = &'b [&'a [Statement]];

impl<'a> Straighten<'a> {
    fn new(module: &'a Module) -> Self {
        Self { module, out: Builder::default(), known: HashMap::new() }
    }

    fn function(mut self, function: &'a Function) -> Function {
        let mut body = Block::new();
        let mut frame = self.frame(function, None, &mut body);
        self.block(&mut frame, &function.body, &[], &mut body);
        self.out.emit(&mut body);
        Function {
            local_variables: self.out.locals,
            expressions: self.out.expressions,
            named_expressions: Default::default(),
            body,
            ..function.clone()
        }
    }

    fn frame(&mut self, function: &'a Function, call: Option<Call>, body: &mut Block) -> Frame<'a> {
        let mut frame = Frame { function, values: HashMap::new(), locals: HashMap::new(), call };
        for (handle, local) in function.local_variables.iter() {
            let own = self.local(local.name.clone(), local.ty);
            frame.locals.insert(handle, own);
            let init = match local.init {
                Some(init) => self.value(&frame, init),
                None => self.out.pure(Expression::ZeroValue(local.ty)),
            };
            self.store(own, init, body);
        }
        frame
    }

    fn local(&mut self, name: Option<String>, ty: Handle<Type>) -> Handle<LocalVariable> {
        self.out.locals.append(LocalVariable { name, ty, init: None }, Span::UNDEFINED)
    }

    fn store(&mut self, local: Handle<LocalVariable>, value: Handle<Expression>, body: &mut Block) {
        let pointer = self.out.pure(Expression::LocalVariable(local));
        self.out.push(Statement::Store { pointer, value }, body);
        self.known.insert(local, Known::Value(value, Vec::new()));
    }

    /// Walks a block and what follows it in the function that is inlined. Whether a return ended
    /// it.
    fn block(
        &mut self,
        frame: &mut Frame<'a>,
        block: &'a [Statement],
        rest: Rest<'a, '_>,
        body: &mut Block,
    ) -> bool {
        for (index, statement) in block.iter().enumerate() {
            let following: Vec<&'a [Statement]> =
                [&block[index + 1..]].into_iter().chain(rest.iter().copied()).collect();
            match statement {
                Statement::Emit(range) => {
                    for old in range.clone() {
                        // Anew, since a block that follows two branches is walked twice.
                        let value = self.made(frame, old);
                        frame.values.insert(old, value);
                    }
                }
                Statement::Block(inner) => return self.block(frame, inner, &following, body),
                Statement::If { condition, accept, reject } => {
                    let condition = self.value(frame, *condition);
                    if let Some(taken) = self.constant_bool(condition) {
                        return self.block(
                            frame,
                            if taken { accept } else { reject },
                            &following,
                            body,
                        );
                    }
                    // What follows a return of an inlined function goes into the branch that has
                    // none.
                    let ends = frame.call.is_some() && (returns(accept) || returns(reject));
                    let following: Rest<'a, '_> = if ends { &following } else { &[] };
                    let branches = self.branches(frame, &[accept, reject], following, body);
                    let [accept, reject] = branches.try_into().expect("two branches");
                    self.out.push(Statement::If { condition, accept, reject }, body);
                    if ends {
                        return false;
                    }
                }
                Statement::Switch { selector, cases } => {
                    let selector = self.value(frame, *selector);
                    let bodies: Vec<&'a [Statement]> =
                        cases.iter().map(|case| &*case.body).collect();
                    let bodies = self.branches(frame, &bodies, &[], body);
                    let cases = cases
                        .iter()
                        .zip(bodies)
                        .map(|(case, body)| naga::SwitchCase { body, ..case.clone() });
                    let cases = cases.collect();
                    self.out.push(Statement::Switch { selector, cases }, body);
                }
                Statement::Loop { body: inner, continuing, break_if } => {
                    let mut stored = HashSet::new();
                    self.stored(frame, inner, &mut stored);
                    self.stored(frame, continuing, &mut stored);
                    stored.iter().for_each(|local| drop(self.known.insert(*local, Known::Unknown)));
                    self.out.emit(body);
                    let known = self.known.clone();
                    self.out.enter();
                    let [mut new, mut new_continuing] = [Block::new(), Block::new()];
                    self.block(frame, inner, &[], &mut new);
                    self.out.emit(&mut new);
                    // A `continue` comes here with other values.
                    self.known = known.clone();
                    self.block(frame, continuing, &[], &mut new_continuing);
                    let break_if = break_if.map(|condition| self.value(frame, condition));
                    self.out.emit(&mut new_continuing);
                    self.out.leave();
                    self.known = known;
                    body.push(
                        Statement::Loop { body: new, continuing: new_continuing, break_if },
                        Span::UNDEFINED,
                    );
                }
                Statement::Return { value } if frame.call.is_some() => {
                    let result = frame.call.as_ref().and_then(|call| call.result);
                    if let (Some(local), Some(value)) = (result, *value) {
                        let value = self.value(frame, value);
                        self.store(local, value, body);
                    }
                    return true;
                }
                Statement::Call { function, arguments, result } => {
                    self.call(frame, (*function, arguments, *result), body);
                }
                other => self.simple(frame, other, body),
            }
        }
        match rest {
            [next, rest @ ..] => self.block(frame, next, rest, body),
            [] => false,
        }
    }

    /// Blocks of which one runs; what is known afterwards is what all of them leave.
    fn branches(
        &mut self,
        frame: &mut Frame<'a>,
        blocks: &[&'a [Statement]],
        rest: Rest<'a, '_>,
        body: &mut Block,
    ) -> Vec<Block> {
        self.out.emit(body);
        let before = self.known.clone();
        let mut after: Option<HashMap<Handle<LocalVariable>, Known>> = None;
        let mut branches = Vec::new();
        for block in blocks {
            self.known = before.clone();
            self.out.enter();
            let mut branch = Block::new();
            self.block(frame, block, rest, &mut branch);
            self.out.emit(&mut branch);
            self.out.leave();
            branches.push(branch);
            let found = std::mem::take(&mut self.known);
            after = Some(match after {
                None => found,
                Some(mut after) => {
                    // What only one branch knows is a variable of its own.
                    after.retain(|local, _| found.contains_key(local));
                    let known =
                        |(local, known): (_, Known)| (local, known.either(found[&local].clone()));
                    after.into_iter().map(known).collect()
                }
            });
        }
        self.known = after.unwrap_or(before);
        branches
    }

    fn call(
        &mut self,
        frame: &mut Frame<'a>,
        (function, arguments, result): (
            Handle<Function>,
            &[Handle<Expression>],
            Option<Handle<Expression>>,
        ),
        body: &mut Block,
    ) {
        let callee = &self.module.functions[function];
        let arguments: Vec<_> =
            arguments.iter().map(|&argument| self.value(frame, argument)).collect();
        if returns_within(&callee.body) {
            arguments.iter().for_each(|&pointer| self.note(pointer, Known::Unknown));
            let returned = result.map(|_| self.out.result(Expression::CallResult(function)));
            self.out.push(Statement::Call { function, arguments, result: returned }, body);
            frame.values.extend(result.zip(returned));
            return;
        }
        let local = callee.result.as_ref().map(|result| self.local(None, result.ty));
        let mut inner = self.frame(callee, Some(Call { arguments, result: local }), body);
        self.block(&mut inner, &callee.body, &[], body);
        if let (Some(result), Some(local)) = (result, local) {
            let pointer = self.out.pure(Expression::LocalVariable(local));
            let value = self.load(pointer);
            frame.values.insert(result, value);
        }
    }

    fn simple(&mut self, frame: &mut Frame<'a>, statement: &Statement, body: &mut Block) {
        let mut results = Vec::new();
        let mut value = |old| self.value(frame, old);
        let mut result = |old: Handle<Expression>| {
            results.push(old);
            old
        };
        let mut new = with_operands(statement, &mut value, &mut result);
        if let Some(&old) = results.first() {
            let own = self.out.result(frame.function.expressions[old].clone());
            frame.values.insert(old, own);
            new = with_operands(&new, &mut |same| same, &mut |_| own);
        }
        if let Statement::Store { pointer, value } = new {
            self.note(pointer, Known::Value(value, Vec::new()));
        }
        self.out.push(new, body);
    }
}
