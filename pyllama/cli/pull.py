"""`pyllama pull`: a model of the hub into the cache."""

from __future__ import annotations

import click

from .common import note, progress_bar, usage_errors


@click.command(short_help="Download a model of the Hugging Face hub.")
@click.argument("name", metavar="ORG/REPO[:QUANT][@REVISION]")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def command(name: str, quiet: bool) -> None:
    """Download a model of the Hugging Face hub into its cache, and print the local path.

    QUANT picks a GGUF file (Q4_K_M, q8_0, ... or a file's whole name); without it, Q4_K_M or the next best
    is taken. A repo without GGUF files gives the folder with its safetensors. What is there already is not
    downloaded again; a download that broke off is resumed by the next pull. HF_HOME, HF_HUB_CACHE,
    HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE count, as for every program that uses huggingface_hub.
    """
    from pyllama.hub import HubName, resolve

    with usage_errors():
        wanted = HubName.parse(name)
    with progress_bar(f"pulling {wanted}", quiet) as progress:
        model = resolve(wanted, progress)
    click.echo(model.path)
    if model.quantize is not None and not quiet:
        note(f"{wanted}: {model.quantize} is what the weights become while they are loaded")
