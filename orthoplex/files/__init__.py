"""Files: written whole or not at all, safetensors headers and tensors, pictures, JSON, Markdown.

Names are imported when they are first asked for: a header is read without torch.
"""

from typing import TYPE_CHECKING

from orthoplex.exports import exports

if TYPE_CHECKING:
    from orthoplex.files.atomic import check_writable, write_json, write_text, written_atomically
    from orthoplex.files.cache import cache_folder
    from orthoplex.files.error_text import lacks_memory, one_line, summary_of
    from orthoplex.files.header import FLOAT_NAMES, HEADER_LIMIT_BYTES, Header, TensorEntry, read_header
    from orthoplex.files.json_text import parse_json, read_json
    from orthoplex.files.markdown import markdown_table
    from orthoplex.files.picture_reading import PICTURE_SUFFIXES, PictureSize, picture_files, picture_size, read_picture
    from orthoplex.files.reports import write_report
    from orthoplex.files.tensors import DTYPES, tensor_bytes, write_in_order, write_tensors
    from orthoplex.files.whole_folder import check_folder, folder_made_once, folder_written_whole

__getattr__ = exports(
    __name__,
    {
        "DTYPES": "tensors",
        "FLOAT_NAMES": "header",
        "HEADER_LIMIT_BYTES": "header",
        "Header": "header",
        "PICTURE_SUFFIXES": "picture_reading",
        "PictureSize": "picture_reading",
        "TensorEntry": "header",
        "cache_folder": "cache",
        "check_folder": "whole_folder",
        "check_writable": "atomic",
        "folder_made_once": "whole_folder",
        "folder_written_whole": "whole_folder",
        "lacks_memory": "error_text",
        "markdown_table": "markdown",
        "one_line": "error_text",
        "parse_json": "json_text",
        "picture_files": "picture_reading",
        "picture_size": "picture_reading",
        "read_header": "header",
        "read_json": "json_text",
        "read_picture": "picture_reading",
        "summary_of": "error_text",
        "tensor_bytes": "tensors",
        "write_in_order": "tensors",
        "write_json": "atomic",
        "write_report": "reports",
        "write_tensors": "tensors",
        "write_text": "atomic",
        "written_atomically": "atomic",
    },
)

__all__ = [
    "DTYPES",
    "FLOAT_NAMES",
    "HEADER_LIMIT_BYTES",
    "Header",
    "PICTURE_SUFFIXES",
    "PictureSize",
    "TensorEntry",
    "cache_folder",
    "check_folder",
    "check_writable",
    "folder_made_once",
    "folder_written_whole",
    "lacks_memory",
    "markdown_table",
    "one_line",
    "parse_json",
    "picture_files",
    "picture_size",
    "read_header",
    "read_json",
    "read_picture",
    "summary_of",
    "tensor_bytes",
    "write_in_order",
    "write_json",
    "write_report",
    "write_tensors",
    "write_text",
    "written_atomically",
]
