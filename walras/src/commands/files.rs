//! Commands that work on a file and need nothing that runs: `walras clear`, `walras pack`,
//! `walras schema`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::table::print_line;
use crate::cli::{FileArgs, SchemaArgs};

/// Largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Clears the book in a file and prints the outcome as JSON.
///
/// # Errors
/// One line that names field and value of what is wrong in the book.
pub fn clear(arguments: &FileArgs) -> Result<()> {
    let text = read(&arguments.file)?;
    print_line(&market::clear::clear_json(&text)?)
}

/// Packs the problem in a file and prints the outcome as JSON.
///
/// # Errors
/// One line that names field and value of what is wrong in the problem.
pub fn pack(arguments: &FileArgs) -> Result<()> {
    let text = read(&arguments.file)?;
    print_line(&placement::pack::pack_json(&text)?)
}

fn read(path: &Path) -> Result<String> {
    let mut text = String::new();
    let limit = FILE_BYTES_MAX + 1;
    let bytes = if path == Path::new("-") {
        std::io::stdin().take(limit).read_to_string(&mut text).context("standard input")?
    } else {
        let shown = || format!("file {}", path.display());
        File::open(path).with_context(shown)?.take(limit).read_to_string(&mut text).with_context(shown)?
    };
    if bytes as u64 > FILE_BYTES_MAX {
        bail!("file {}: larger than {FILE_BYTES_MAX} bytes", path.display());
    }
    Ok(text)
}

/// Writes the JSON Schemas, the AsyncAPI and the OpenAPI document into a folder, or prints their names.
///
/// # Errors
/// When a file cannot be written.
pub fn schema(arguments: &SchemaArgs) -> Result<()> {
    let mut documents = proto::schema::documents();
    let openapi = serde_json::to_string_pretty(&crate::gateway::openapi::document())?;
    documents.push(("openapi.json".into(), openapi + "\n"));
    for (name, text) in documents {
        match &arguments.dir {
            None => print_line(&name)?,
            Some(dir) => {
                std::fs::create_dir_all(dir).with_context(|| format!("folder {}", dir.display()))?;
                let path = dir.join(&*name);
                std::fs::write(&path, text).with_context(|| format!("file {}", path.display()))?;
                print_line(&path.display().to_string())?;
            }
        }
    }
    Ok(())
}
