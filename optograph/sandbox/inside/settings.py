"""What a zygote is told when it starts, as both sides know it."""

from __future__ import annotations

from typing import TypedDict

IN, OUT = 3, 4
"""File descriptors of a child: requests come in on one, replies go out on the other."""


class Settings(TypedDict):
    """What a zygote is told when it starts.

    Attributes:
        locked: Whether children are locked in; else limits are all that holds them.
        root: Folder in which each child gets a folder of its own.
        paths: Folders of libraries: put on the import path, and readable in the sandbox.
        search: Folders on the import path for the zygote's own pre-imports only.
        readable: Other folders and files that are readable in the sandbox.
        imports: Modules imported before the first child is made.
        memory: Memory a child may take beside what the zygote has, in bytes.
        disk: Bytes of files that a child may hold.
        entries: Files and folders that a child may hold.
        cpu: Processor time of a child, in seconds.
        open_files: Files that a child may have open.
        threads: Threads that a child may have.
        received: Longest request in bytes.
        sent: Longest reply in bytes.
        printed: Characters kept of what a call prints.
    """

    locked: bool
    root: str
    paths: list[str]
    search: list[str]
    readable: list[str]
    imports: list[str]
    memory: int
    disk: int
    entries: int
    cpu: int
    open_files: int
    threads: int
    received: int
    sent: int
    printed: int
