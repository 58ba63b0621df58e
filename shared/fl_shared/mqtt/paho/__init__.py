"""The only subpackage that imports paho.

=====================  ==========================================================
``link``               one paho client, driven by our event loop
``fast_client``        avoids copies that paho makes
``compatibility``      falls back to unmodified paho if it is not the version that ``fast_client`` knows
``publish_packet``     encodes and decodes PUBLISH packets without copies
``property_reader``    bounds how many properties paho reads, and reads what it would refuse
``options``            our settings as paho's options and properties
``probe``              a connection with which the doctor tests a broker
``probe_results``      what a probe has received
=====================  ==========================================================
"""
