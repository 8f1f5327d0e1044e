"""A synthetic set on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from datamodules.synthetic.whole_set import open_whole
from synfer.foundation.file_reading import one_line

UPLOADED = ("README.md", "MANIFEST", "synthesis.json", "data/*.parquet")
"""What belongs to a set; locks, journals and what else lies in its folder stays here."""


def push_to_hub(folder: Path, repo: str, public: bool = False, token: str | None = None) -> str:
    """Uploads a finished set as a data set of the Hub, and returns its address.

    A set that is there already gets the shards that differ. Private unless asked otherwise: faces may be near copies of
    training faces, and whether they may be passed on depends on the licences of data and base model.

    Args:
        folder: a finished set.
        repo: "user/name".
        public: whether a repository that is made anew is public; one that is there stays as it is.
        token: of the Hub; None = ``HF_TOKEN``, or the one of ``hf auth login``.

    Raises:
        ValueError: the set is unfinished, or the Hub refuses; one line.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError

    found = open_whole(folder)
    api = HfApi(token=token)
    try:
        address = api.create_repo(repo, repo_type="dataset", private=not public, exist_ok=True)
        api.upload_folder(
            repo_id=repo,
            repo_type="dataset",
            folder_path=folder,
            allow_patterns=list(UPLOADED),
            commit_message=f"{found.faces} synthetic faces",
        )
    except HFValidationError as error:
        raise ValueError(f"Hub: found the name '{repo}', expected user/name ({one_line(error)[:160]})") from error
    except LocalTokenNotFoundError as error:
        raise ValueError(f"Hub '{repo}': found no token, expected HF_TOKEN, or hf auth login before") from error
    except Exception as error:  # of its client of HTTP, which is another one from version to version
        raise ValueError(
            f"Hub '{repo}': the set cannot be uploaded ({one_line(error)[:160]}), expected a Hub that answers, and "
            "a token that may write there (HF_TOKEN)"
        ) from error
    return str(address)
