"""Makes the sources of the documentation site: `docs/`, with the pages that are generated from other files.

============  =============================================================================================
``assemble``  copies the documents, lists decisions, schemas and test vectors, and mends links out of `docs/`
``asyncapi``  a page of all topics and messages, from `docs/asyncapi.yaml`
============  =============================================================================================
"""
