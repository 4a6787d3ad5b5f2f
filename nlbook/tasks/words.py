"""Words to remember: forty countries and their capitals, for memories that a reader can quiz."""
from __future__ import annotations

CAPITALS: tuple[tuple[str, str], ...] = (
    ("France", "Paris"), ("Japan", "Tokyo"), ("Kenya", "Nairobi"), ("Peru", "Lima"), ("Norway", "Oslo"),
    ("Egypt", "Cairo"), ("Chile", "Santiago"), ("India", "New Delhi"), ("Cuba", "Havana"), ("Ghana", "Accra"),
    ("Italy", "Rome"), ("Spain", "Madrid"), ("Iran", "Tehran"), ("Iraq", "Baghdad"), ("Nepal", "Kathmandu"),
    ("Austria", "Vienna"), ("Poland", "Warsaw"), ("Greece", "Athens"), ("Senegal", "Dakar"), ("Uganda", "Kampala"),
    ("Vietnam", "Hanoi"), ("Thailand", "Bangkok"), ("Mongolia", "Ulaanbaatar"), ("Finland", "Helsinki"),
    ("Sweden", "Stockholm"), ("Denmark", "Copenhagen"), ("Iceland", "Reykjavik"), ("Ireland", "Dublin"),
    ("Portugal", "Lisbon"), ("Hungary", "Budapest"), ("Romania", "Bucharest"), ("Bulgaria", "Sofia"),
    ("Jordan", "Amman"), ("Lebanon", "Beirut"), ("Morocco", "Rabat"), ("Ethiopia", "Addis Ababa"),
    ("Canada", "Ottawa"), ("Mexico", "Mexico City"), ("Colombia", "Bogotá"), ("Uruguay", "Montevideo"),
)
