"""A package with a name of its own: in the jobqueue repository the project's folder is called as the package that it holds, and pytest's
importlib mode would otherwise take the folder for that package."""
