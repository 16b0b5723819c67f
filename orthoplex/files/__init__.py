"""Files: written whole or not at all, safetensors headers and tensors, pictures, JSON, Markdown.

Names are imported when they are first asked for: a header is read without torch.
"""

from typing import TYPE_CHECKING

from orthoplex.exports import exports

if TYPE_CHECKING:
    from orthoplex.files.atomic import check_writable, write_text, written_atomically
    from orthoplex.files.cache import cache_folder
    from orthoplex.files.header import DTYPE_NAMES, HEADER_LIMIT_BYTES, Header, TensorEntry, parse_json, read_header
    from orthoplex.files.markdown import markdown_table
    from orthoplex.files.pictures import PICTURE_SUFFIXES, picture_files, read_picture
    from orthoplex.files.tensors import DTYPES, tensor_bytes, write_in_order, write_tensors

__getattr__ = exports(
    __name__,
    {
        "DTYPES": "tensors",
        "DTYPE_NAMES": "header",
        "HEADER_LIMIT_BYTES": "header",
        "Header": "header",
        "PICTURE_SUFFIXES": "pictures",
        "TensorEntry": "header",
        "cache_folder": "cache",
        "check_writable": "atomic",
        "markdown_table": "markdown",
        "parse_json": "header",
        "picture_files": "pictures",
        "read_header": "header",
        "read_picture": "pictures",
        "tensor_bytes": "tensors",
        "write_in_order": "tensors",
        "write_tensors": "tensors",
        "write_text": "atomic",
        "written_atomically": "atomic",
    },
)

__all__ = [
    "DTYPES",
    "DTYPE_NAMES",
    "HEADER_LIMIT_BYTES",
    "Header",
    "PICTURE_SUFFIXES",
    "TensorEntry",
    "cache_folder",
    "check_writable",
    "markdown_table",
    "parse_json",
    "picture_files",
    "read_header",
    "read_picture",
    "tensor_bytes",
    "write_in_order",
    "write_tensors",
    "write_text",
    "written_atomically",
]
