//! LLVM's text of a program, as far as a call graph needs it.

use std::collections::{HashMap, HashSet};

/// Types of what is returned and of the parameters: what an indirect call and its target have in common.
pub type Signature = String;

/// What one function does in blocks that are reached without unwinding.
#[derive(Default)]
pub struct Function {
    pub signature: Signature,
    pub exported: bool,
    /// Functions called by name, also external ones and intrinsics.
    pub calls: HashSet<String>,
    /// Calls through a pointer.
    pub indirect: HashSet<Signature>,
    /// Functions and globals whose address it takes.
    pub mentions: HashSet<String>,
    /// Of those, the ones that an external function gets, which may call them.
    pub handed_out: HashSet<String>,
}

/// A program after link-time optimisation.
#[derive(Default)]
pub struct Program {
    pub functions: HashMap<String, Function>,
    pub external: HashSet<String>,
    /// What the value of each global names.
    pub globals: HashMap<String, HashSet<String>>,
}

impl Program {
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut program = Self::default();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if line.starts_with("declare ") {
                program.external.insert(first_name(line)?);
            } else if line.starts_with('@') {
                let mut names = names(line);
                program.globals.insert(names.remove(0), names.into_iter().collect());
            }
        }
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if line.starts_with("define ") {
                let body: Vec<&str> = lines.by_ref().take_while(|l| *l != "}").collect();
                let function = program.function(line, &body)?;
                program.functions.insert(first_name(line)?, function);
            }
        }
        Ok(program)
    }

    fn function(&self, head: &str, body: &[&str]) -> Result<Function, String> {
        let at = callee(head).ok_or_else(|| format!("no name: {head}"))?;
        let exported = !["internal ", "private ", "hidden "].iter().any(|l| head[..at.start].contains(l));
        let mut f = Function { signature: signature(head, &at)?, exported, ..Function::default() };
        for line in reached(body) {
            self.instruction(line, &mut f)?;
        }
        Ok(f)
    }

    fn instruction(&self, line: &str, f: &mut Function) -> Result<(), String> {
        let Some(call) = call(line) else {
            f.mentions.extend(names(line));
            return Ok(());
        };
        if call.contains(" asm ") {
            return Ok(());
        }
        let at = callee(call).ok_or_else(|| format!("no callee: {line}"))?;
        let arguments = names(&call[at.open..]);
        if at.by_name {
            if self.external.contains(&at.name) && !at.name.starts_with("llvm.") {
                f.handed_out.extend(arguments.iter().cloned());
            }
            f.calls.insert(at.name);
        } else {
            f.indirect.insert(signature(call, &at)?);
        }
        f.mentions.extend(arguments);
        Ok(())
    }
}

/// The lines of the blocks that are reached from the first one without unwinding: nothing unwinds before something
/// panics, and a panic reached in these blocks is what is looked for.
fn reached<'t>(body: &[&'t str]) -> Vec<&'t str> {
    let mut blocks: Vec<(String, Vec<&str>)> = vec![(String::new(), vec![])];
    for line in body {
        match label(line) {
            Some(name) => blocks.push((name, vec![])),
            None => blocks.last_mut().into_iter().for_each(|b| b.1.push(line)),
        }
    }
    let numbers: HashMap<&str, usize> = blocks.iter().enumerate().map(|(i, b)| (b.0.as_str(), i)).collect();
    // The first block may have no label line.
    let first = usize::from(blocks[0].1.is_empty() && blocks.len() > 1);
    let mut seen = HashSet::from([first]);
    let mut next = vec![first];
    let mut lines = Vec::new();
    while let Some(block) = next.pop() {
        for line in &blocks[block].1 {
            lines.push(*line);
            for to in targets(line) {
                if let Some(&n) = numbers.get(to) {
                    if seen.insert(n) {
                        next.push(n);
                    }
                }
            }
        }
    }
    lines
}

/// The label that this line defines.
fn label(line: &str) -> Option<String> {
    if line.starts_with([' ', ';', '\t']) || line.is_empty() {
        return None;
    }
    let line = line.split("; preds").next()?.trim_end();
    Some(line.strip_suffix(':')?.trim_matches('"').to_string())
}

/// Labels that this line goes to, other than by unwinding.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("label %").filter(|(at, _)| !line[..*at].ends_with("unwind ")).filter_map(|(at, m)| {
        let rest = &line[at + m.len()..];
        match rest.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next(),
            None => rest.split(|c: char| !is_name(c)).next(),
        }
    })
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-$._".contains(c)
}

/// The call in this line, from its opcode on.
fn call(line: &str) -> Option<&str> {
    let mut text = line.trim_start();
    if text.starts_with('%') {
        text = text.split_once(" = ")?.1;
    }
    for prefix in ["tail ", "musttail ", "notail "] {
        text = text.strip_prefix(prefix).unwrap_or(text);
    }
    ["call ", "invoke ", "callbr "].iter().any(|op| text.starts_with(op)).then_some(text)
}

/// Where a call or definition names its function.
struct Callee {
    name: String,
    by_name: bool,
    start: usize,
    open: usize,
}

/// The first name that an opening parenthesis follows; `None` if there is none.
fn callee(text: &str) -> Option<Callee> {
    for (start, sigil) in text.match_indices(['@', '%']) {
        let rest = &text[start + 1..];
        let (name, len) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').map(|(name, _)| (name, name.len() + 2))?,
            None => {
                let len = rest.find(|c| !is_name(c))?;
                (&rest[..len], len)
            }
        };
        if rest[len..].starts_with('(') {
            return Some(Callee { name: name.to_string(), by_name: sigil == "@", start, open: start + 1 + len });
        }
    }
    None
}

/// Every `@name` in the text that is not within a string.
fn names(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['@', '"']) {
        let after = &rest[at + 1..];
        if rest[at..].starts_with('"') {
            rest = after.split_once('"').map_or("", |(_, r)| r);
        } else if let Some(quoted) = after.strip_prefix('"') {
            let (name, r) = quoted.split_once('"').unwrap_or((quoted, ""));
            found.push(name.to_string());
            rest = r;
        } else {
            let end = after.find(|c| !is_name(c)).unwrap_or(after.len());
            found.push(after[..end].to_string());
            rest = &after[end..];
        }
    }
    found
}

fn first_name(line: &str) -> Result<String, String> {
    names(line).into_iter().next().ok_or_else(|| format!("no name: {line}"))
}

fn signature(text: &str, at: &Callee) -> Result<Signature, String> {
    let returned = last_type(text[..at.start].trim_end());
    let inner = &text[at.open + 1..];
    let mut depth = 0_i32;
    let mut types = Vec::new();
    let mut begin = 0;
    for (i, c) in inner.char_indices() {
        match c {
            '(' | '[' | '{' | '<' => depth += 1,
            ')' if depth == 0 => {
                types.push(first_type(inner[begin..i].trim()));
                return Ok(format!("{returned} ({})", types.join(", ")));
            }
            ')' | ']' | '}' | '>' => depth -= 1,
            ',' if depth == 0 => {
                types.push(first_type(inner[begin..i].trim()));
                begin = i + 1;
            }
            _ => {}
        }
    }
    Err(format!("no end of parameters: {text}"))
}

/// The type that the text begins with.
fn first_type(text: &str) -> String {
    let mut depth = 0_i32;
    for (i, c) in text.char_indices() {
        match c {
            '[' | '{' | '<' => depth += 1,
            ']' | '}' | '>' => depth -= 1,
            ' ' if depth == 0 => return text[..i].to_string(),
            _ => {}
        }
    }
    text.to_string()
}

/// The type that the text ends with.
fn last_type(text: &str) -> String {
    let mut depth = 0_i32;
    for (i, c) in text.char_indices().rev() {
        match c {
            ']' | '}' | '>' => depth += 1,
            '[' | '{' | '<' => depth -= 1,
            ' ' if depth == 0 => return text[i + 1..].to_string(),
            _ => {}
        }
    }
    text.to_string()
}
