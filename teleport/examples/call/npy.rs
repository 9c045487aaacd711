//! Reads and writes arrays as NumPy's `.npy` files.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;

use npyz::{DType as NpyType, NpyHeader, Order, WriterBuilder};
use teleport::{Array, BoxError, Buffer, DType, Tree};

/// Reads an array of any dtype that Teleport supports.
pub(crate) fn read(path: &Path) -> Result<Array, BoxError> {
    read_array(path).map_err(|error| format!("cannot read {}: {error}", path.display()).into())
}

fn read_array(path: &Path) -> Result<Array, BoxError> {
    let mut file = BufReader::new(File::open(path)?);
    let header = NpyHeader::from_reader(&mut file)?;
    let NpyType::Plain(name) = header.dtype() else {
        return Err("it holds records; save their fields as arrays of their own".into());
    };
    if header.order() == Order::Fortran && header.shape().len() > 1 {
        return Err("its axes are in Fortran's order; save numpy.ascontiguousarray(x)".into());
    }
    let dtype: DType = name.to_string().parse()?;
    let shape: Vec<usize> = header.shape().iter().map(|size| *size as usize).collect();
    let bytes = dtype.array_bytes(&shape).ok_or("its shape is larger than memory")?;
    let mut buffer = Vec::new();
    file.take(bytes as u64).read_to_end(&mut buffer)?;
    if buffer.len() < bytes {
        return Err(format!("it ends after {} of {bytes} bytes", buffer.len()).into());
    }
    // The copy is aligned for every dtype.
    Ok(Array::from_buffer(dtype, &shape[..], Buffer::copy_from(&buffer))?)
}

/// Writes an array of numbers or bools.
pub(crate) fn write(path: &Path, array: &Array) -> Result<(), BoxError> {
    write_array(path, array).map_err(|error| format!("cannot write {}: {error}", path.display()).into())
}

fn write_array(path: &Path, array: &Array) -> Result<(), BoxError> {
    match array.dtype() {
        DType::Bool => write_as::<bool>(path, array),
        DType::I8 => write_as::<i8>(path, array),
        DType::I16 => write_as::<i16>(path, array),
        DType::I32 => write_as::<i32>(path, array),
        DType::I64 => write_as::<i64>(path, array),
        DType::U8 => write_as::<u8>(path, array),
        DType::U16 => write_as::<u16>(path, array),
        DType::U32 => write_as::<u32>(path, array),
        DType::U64 => write_as::<u64>(path, array),
        DType::F32 => write_as::<f32>(path, array),
        DType::F64 => write_as::<f64>(path, array),
        other => Err(format!("{other} cannot be saved here; convert it to a number type").into()),
    }
}

fn write_as<T: teleport::wire::Element + npyz::AutoSerialize>(
    path: &Path,
    array: &Array,
) -> Result<(), BoxError> {
    let shape: Vec<u64> = array.shape().iter().map(|size| *size as u64).collect();
    let mut file = BufWriter::new(File::create(path)?);
    let mut writer = npyz::WriteOptions::new().default_dtype().shape(&shape).writer(&mut file).begin_nd()?;
    writer.extend(array.as_slice::<T>()?)?;
    writer.finish()?;
    Ok(file.flush()?)
}

/// Returns the only array of a result.
pub(crate) fn only_array(tree: &Tree) -> Result<&Array, BoxError> {
    let mut arrays = tree.leaves().filter_map(Tree::as_array);
    match (arrays.next(), arrays.next()) {
        (Some(array), None) => Ok(array),
        (None, _) => Err("the result holds no array to save".into()),
        (Some(_), Some(_)) => Err("the result holds several arrays; --save takes one".into()),
    }
}
