"""Starts the application: `python app.py` (also a Space's entry). `python app.py --help` lists the host's settings."""

import sys

from instantid_demo.request import RequestError
from instantid_demo.settings import Settings


def main(arguments: list[str]) -> int:
    """Serves the page until it is stopped; returns the exit code."""
    settings = Settings.from_flags(arguments)
    from instantid_demo.ui import uploads

    # Before Gradio is imported: parts of it remember the folder from then.
    uploads.keep_swept(uploads.own_folder(), settings.upload_minutes)
    from instantid_demo import engine
    from instantid_demo.ui import studio

    try:
        page = studio.build(settings)
        studio.launch(page, settings, prevent_thread_lock=True)
    except RequestError as error:
        print(error, file=sys.stderr)
        return 2
    studio.warm_up(engine.shared(settings))
    page.block_thread()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
