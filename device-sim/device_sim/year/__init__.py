"""A year of device life: seasons, wear, persons who come and go, outages, power cuts, releases and attackers.

From settings (`settings`) follows what happens at each device and when (`timetable`). `place` makes the captures,
`life` lets a device live through them beside its `rivals`, `books` count, `fleet` plays all devices, and `result` is
the one file of which report and documentation are made.
"""
