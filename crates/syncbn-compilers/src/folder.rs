//! The folder with the shaders for the judges: one folder per language, and a list of names per
//! judge.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::translate::{ENTRY, Hlsl, Module, TARGETS, Target, TranslateError};
use crate::variants::Shader;
use crate::verdict::{Verdict, in_parallel};

/// The table of all shaders.
const TABLE: &str = "variants.json";

/// A shader as naga has read it, or has not.
type Read<'a> = Result<Module<'a>, TranslateError>;

/// A shader for a compiler of Direct3D.
pub struct Job {
    /// The shader's name, with the profile.
    pub name: String,
    /// The compiler and the shader model.
    pub profile: String,
    /// The entry point.
    pub entry: String,
    /// The file, from the folder on.
    pub file: String,
    /// Whether 16-bit types are switched on.
    pub has_16_bits: bool,
}

/// The folder.
pub struct Folder(PathBuf);

impl Folder {
    /// An empty folder.
    pub fn create(path: &Path) -> io::Result<Self> {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir_all(path)?,
        }
        Ok(Self(path.to_owned()))
    }

    /// One that is there.
    pub fn open(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file, and the folder that it lies in.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let path = self.file(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, bytes)
    }

    /// Writes the names of the shaders that a judge must take or refuse.
    pub fn write_list(
        &self,
        judge: &str,
        names: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> io::Result<()> {
        self.write(&format!("{judge}.list"), lines(names))
    }

    /// The names that a judge has to know.
    pub fn list(&self, judge: &str) -> io::Result<Vec<String>> {
        let text = fs::read_to_string(self.file(&format!("{judge}.list")))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// The table of all shaders, and their WGSL.
    pub fn write_wgsl(&self, shaders: &[Shader]) -> io::Result<()> {
        for shader in shaders {
            self.write(&format!("wgsl/{}.wgsl", shader.name), &shader.source)?;
        }
        self.write(TABLE, serde_json::to_string_pretty(shaders)?)
    }

    /// Translates the shaders to other languages, if a device that takes the language takes the
    /// shader. Returns naga's verdicts, by language.
    pub fn translate(
        &self,
        targets: &[&dyn Target],
        shaders: &[&Shader],
    ) -> io::Result<Vec<Vec<Verdict>>> {
        let of_shader = |shader: &&Shader| -> io::Result<Vec<Option<Verdict>>> {
            // Most languages are made of one source.
            let module = Module::read(shader, &shader.source);
            let verdict = |target: &&dyn Target| match target.source(shader) {
                _ if !target.takes(shader) => Ok(None),
                source if source == shader.source => self.ask(*target, shader, &module).map(Some),
                source => self.ask(*target, shader, &Module::read(shader, source)).map(Some),
            };
            targets.iter().map(verdict).collect()
        };
        let mut verdicts: Vec<Vec<Verdict>> = targets.iter().map(|_| Vec::new()).collect();
        for said in in_parallel(shaders, of_shader) {
            for (list, verdict) in verdicts.iter_mut().zip(said?) {
                list.extend(verdict);
            }
        }
        Ok(verdicts)
    }

    /// Writes a shader in another language.
    fn ask(&self, target: &dyn Target, shader: &Shader, module: &Read<'_>) -> io::Result<Verdict> {
        let source = match module {
            Ok(module) => target.write(module).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Ok(source) = &source {
            self.write(&format!("{}/{}{}", target.name(), shader.name, target.ending()), source)?;
        }
        Ok(Verdict::new(&shader.name, source.map(drop)))
    }

    /// The table of all shaders, without their sources.
    pub fn shaders(&self) -> io::Result<Vec<Shader>> {
        Ok(serde_json::from_str(&fs::read_to_string(self.file(TABLE))?)?)
    }

    /// Writes naga's verdicts on the shaders in another language, in the form of any other judge.
    pub fn write_verdicts(&self, target: &dyn Target, verdicts: &[Verdict]) -> io::Result<()> {
        let judge = format!("naga.{}", target.name());
        self.write(&format!("{judge}.verdicts"), lines(verdicts.iter().map(Verdict::to_string)))?;
        self.write_list(&judge, verdicts.iter().map(|verdict| &verdict.name))
    }

    /// The jobs of a compiler of Direct3D.
    pub fn write_jobs(&self, judge: &str, jobs: &[Job]) -> io::Result<()> {
        let flags = |job: &Job| if job.has_16_bits { "16" } else { "-" };
        let line = |job: &Job| {
            format!("{}\t{}\t{}\t{}\t{}", job.name, job.profile, job.entry, job.file, flags(job))
        };
        self.write(&format!("{judge}.jobs"), lines(jobs.iter().map(line)))?;
        self.write_list(judge, jobs.iter().map(|job| &job.name))
    }
}

/// Each with a line end.
fn lines(words: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    words.into_iter().map(|word| format!("{}\n", word.as_ref())).collect()
}

/// Writes every shader for every judge. The compilers of Direct3D get some of them.
pub fn fill(
    folder: &Folder,
    shaders: &[Shader],
    asked_of_dxc: impl Fn(&Shader) -> bool,
    asked_of_fxc: impl Fn(&Shader) -> bool,
) -> io::Result<()> {
    folder.write_wgsl(shaders)?;
    folder.write_list("tint", shaders.iter().map(|shader| &shader.name))?;
    folder.write_list("mesa", shaders.iter().map(|shader| &shader.name))?;
    let references: Vec<&Shader> = shaders.iter().collect();
    for (target, verdicts) in TARGETS.iter().zip(folder.translate(TARGETS, &references)?) {
        folder.write_verdicts(*target, &verdicts)?;
        if let Some(judge) = target.judge() {
            folder.write_list(&judge, verdicts.iter().map(|verdict| &verdict.name))?;
        }
    }
    folder.write_jobs("fxc", &jobs(&[Hlsl::V5_1], shaders, asked_of_fxc))?;
    folder.write_jobs("dxc", &jobs(&[Hlsl::V6_0, Hlsl::V6_6], shaders, asked_of_dxc))
}

/// A job for every requested shader that the model takes.
pub fn jobs(models: &[Hlsl], shaders: &[Shader], is_asked: impl Fn(&Shader) -> bool) -> Vec<Job> {
    let mut jobs = Vec::new();
    for model in models {
        for shader in shaders.iter().filter(|shader| model.takes(shader) && is_asked(shader)) {
            jobs.push(Job::of(*model, &shader.name));
        }
    }
    jobs
}

impl Job {
    /// The job of a shader, whose entry point naga leaves its name.
    pub fn of(model: Hlsl, shader: &str) -> Self {
        let profile = model.profile();
        Self {
            name: format!("{shader}.{profile}"),
            file: format!("{}/{shader}{}", model.name(), model.ending()),
            entry: ENTRY.to_owned(),
            has_16_bits: model.has_16_bits(),
            profile,
        }
    }
}
